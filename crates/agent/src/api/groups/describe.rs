//! DescribeGroups and ListGroups. It must not know how groups work.

use rpc::group::{GroupReply, GroupRequest};
use wire::errors::ErrorCode;
use wire::messages::describe_groups::{
    DescribeGroupsRequest, DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use wire::messages::list_groups::{ListGroupsRequest, ListGroupsResponse, ListedGroup};
use wire::text::Str;

use super::{ask, mismatched};
use crate::api::{errors, once};
use crate::context::Context;

/// A group that does not exist is an error from this version on; it is "Dead" before.
const NOT_FOUND_SINCE: i16 = 6;
/// The value of "authorized operations" for a client that did not ask for them.
const OPERATIONS_UNASKED: i32 = i32::MIN;
/// The only type of group that there is.
const CLASSIC: &str = "classic";

pub(crate) async fn describe(
    context: &Context,
    request: DescribeGroupsRequest,
    version: i16,
) -> DescribeGroupsResponse {
    let asked = once(request.groups, Clone::clone);
    let ids = asked.iter().map(ToString::to_string).collect();
    let outcome = match ask(context, GroupRequest::Describe(ids)).await {
        Ok(GroupReply::Describe(Ok(groups))) => Ok(groups),
        Ok(GroupReply::Describe(Err(error))) => Err(errors::of_group(error)),
        Ok(other) => Err(mismatched(&other)),
        Err(code) => Err(code),
    };
    let groups = match outcome {
        Ok(groups) => groups
            .into_iter()
            .map(|group| described(group, version))
            .collect(),
        Err(code) => asked.into_iter().map(|id| failed(id, code)).collect(),
    };
    DescribeGroupsResponse {
        groups,
        ..DescribeGroupsResponse::default()
    }
}

fn failed(group_id: Str, code: ErrorCode) -> DescribedGroup {
    DescribedGroup {
        error_code: code.code(),
        group_id,
        authorized_operations: OPERATIONS_UNASKED,
        ..DescribedGroup::default()
    }
}

fn described(group: rpc::group::DescribedGroup, version: i16) -> DescribedGroup {
    if let Some(error) = group.error {
        return failed(group.group.into(), errors::of_group(error));
    }
    let is_missing = !group.exists && version >= NOT_FOUND_SINCE;
    let code = if is_missing {
        ErrorCode::GroupIdNotFound
    } else {
        ErrorCode::None
    };
    let members = group
        .members
        .into_iter()
        .map(|member| DescribedGroupMember {
            member_id: member.member.into(),
            group_instance_id: member.instance.map(Str::from),
            client_id: member.client_id.into(),
            client_host: member.client_host.into(),
            member_metadata: member.metadata,
            member_assignment: member.assignment,
        });
    DescribedGroup {
        error_code: code.code(),
        error_message: is_missing.then(|| Str::from_static("there is no such group")),
        group_id: group.group.into(),
        group_state: group.state.into(),
        protocol_type: group.protocol_type.into(),
        protocol_data: group.protocol.into(),
        members: members.collect(),
        authorized_operations: OPERATIONS_UNASKED,
    }
}

pub(crate) async fn list(context: &Context, request: ListGroupsRequest) -> ListGroupsResponse {
    let types = &request.types_filter;
    if !types.is_empty() && !types.iter().any(|name| name.eq_ignore_ascii_case(CLASSIC)) {
        return ListGroupsResponse::default();
    }
    let states = request
        .states_filter
        .iter()
        .map(ToString::to_string)
        .collect();
    let code = match ask(context, GroupRequest::List(states)).await {
        Ok(GroupReply::List(Ok(groups))) => {
            let groups = groups.into_iter().map(|group| ListedGroup {
                group_id: group.group.into(),
                protocol_type: group.protocol_type.into(),
                group_state: group.state.into(),
                group_type: Str::from_static(CLASSIC),
            });
            return ListGroupsResponse {
                groups: groups.collect(),
                ..ListGroupsResponse::default()
            };
        }
        Ok(GroupReply::List(Err(error))) => errors::of_group(error),
        Ok(other) => mismatched(&other),
        Err(code) => code,
    };
    ListGroupsResponse {
        error_code: code.code(),
        ..ListGroupsResponse::default()
    }
}
