//! Chooses the types of an API by its name: ours, and those of the `kafka-protocol` crate.
//!
//! It must not know what is done with them.

/// Expands `$body` once per API with `$ours` and, if named, `$their_request` and `$their_response`
/// as types.
#[macro_export]
macro_rules! for_api {
    ($name:expr, $ours:ident, $theirs_request:ident, $theirs_response:ident => $body:expr) => {
        $crate::for_api!(@table $name, $ours, $theirs_request, $theirs_response => $body;
            Produce produce ProduceRequest ProduceResponse;
            Fetch fetch FetchRequest FetchResponse;
            ListOffsets list_offsets ListOffsetsRequest ListOffsetsResponse;
            Metadata metadata MetadataRequest MetadataResponse;
            OffsetCommit offset_commit OffsetCommitRequest OffsetCommitResponse;
            OffsetFetch offset_fetch OffsetFetchRequest OffsetFetchResponse;
            FindCoordinator find_coordinator FindCoordinatorRequest FindCoordinatorResponse;
            JoinGroup join_group JoinGroupRequest JoinGroupResponse;
            Heartbeat heartbeat HeartbeatRequest HeartbeatResponse;
            LeaveGroup leave_group LeaveGroupRequest LeaveGroupResponse;
            SyncGroup sync_group SyncGroupRequest SyncGroupResponse;
            DescribeGroups describe_groups DescribeGroupsRequest DescribeGroupsResponse;
            ListGroups list_groups ListGroupsRequest ListGroupsResponse;
            ApiVersions api_versions ApiVersionsRequest ApiVersionsResponse;
            CreateTopics create_topics CreateTopicsRequest CreateTopicsResponse;
            DeleteTopics delete_topics DeleteTopicsRequest DeleteTopicsResponse;
            DeleteRecords delete_records DeleteRecordsRequest DeleteRecordsResponse;
            InitProducerId init_producer_id InitProducerIdRequest InitProducerIdResponse;
            OffsetForLeaderEpoch offset_for_leader_epoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse;
            DescribeConfigs describe_configs DescribeConfigsRequest DescribeConfigsResponse;
            CreatePartitions create_partitions CreatePartitionsRequest CreatePartitionsResponse;
            DeleteGroups delete_groups DeleteGroupsRequest DeleteGroupsResponse;
            IncrementalAlterConfigs incremental_alter_configs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse;
            OffsetDelete offset_delete OffsetDeleteRequest OffsetDeleteResponse;
            DescribeCluster describe_cluster DescribeClusterRequest DescribeClusterResponse;
            DescribeTopicPartitions describe_topic_partitions DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse;
        )
    };
    (@table $name:expr, $ours:ident, $theirs_request:ident, $theirs_response:ident => $body:expr;
        $($api:ident $module:ident $request:ident $response:ident;)*) => {
        match $name {
            $(stringify!($api) => {
                #[allow(dead_code, reason = "a test may want only one side")]
                type $ours = wire::messages::$module::$request;
                #[allow(dead_code, reason = "a test may want only one side")]
                type $theirs_request = kafka_protocol::messages::$request;
                #[allow(dead_code, reason = "a test may want only one side")]
                type $theirs_response = kafka_protocol::messages::$response;
                $body
            })*
            other => panic!("{other} has a schema but is not in this table"),
        }
    };
}
