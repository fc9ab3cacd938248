//! DescribeConfigs: the configs of topics and of this broker, where each value comes from, and what
//! it means. It must not know what a config does.

use std::sync::Arc;

use meta::config::{self, Source};
use meta::setting::Setting;
use wire::errors::ErrorCode;
use wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use wire::text::Str;

use super::{errors, once};
use crate::context::Context;
use crate::settings::BrokerConfig;
use crate::view::View;

/// Kafka's types of resources (`ConfigResource.Type`).
const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;
/// Kafka's sources of values (`DescribeConfigsResponse.ConfigSource`).
const FROM_TOPIC: i8 = 1;
const FROM_BROKER: i8 = 4;
const FROM_DEFAULT: i8 = 5;

/// Kafka's number for the source of a value.
pub(crate) fn source_code(source: Source) -> i8 {
    match source {
        Source::Topic => FROM_TOPIC,
        Source::Cluster => FROM_BROKER,
        Source::Default => FROM_DEFAULT,
    }
}

pub(crate) async fn describe_configs(
    context: &Context,
    mut request: DescribeConfigsRequest,
) -> DescribeConfigsResponse {
    // Naming a resource costs a client a few bytes and is answered with thousands, so each is
    // described once.
    request.resources = once(request.resources, |resource| {
        (resource.resource_type, resource.resource_name.clone())
    });
    let (synonyms, documentation) = (request.include_synonyms, request.include_documentation);
    let view = view_for(context, &request).await;
    let mut results = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let described = match resource.resource_type {
            TOPIC_RESOURCE => describe_topic(&view, &resource.resource_name),
            BROKER_RESOURCE => describe_broker(context, &resource.resource_name),
            _ => Err((
                ErrorCode::InvalidRequest,
                "only topics and brokers have configs".to_owned(),
            )),
        };
        results.push(result(resource, described, synonyms, documentation));
    }
    DescribeConfigsResponse {
        results,
        ..DescribeConfigsResponse::default()
    }
}

/// A view in which the request's topics were looked for; it is current if one of them is not in it.
struct Seen {
    latest: Arc<View>,
    current: Option<Result<Arc<View>, rpc::Error>>,
}

/// Makes the view current at most once, however many topics are missing.
async fn view_for(context: &Context, request: &DescribeConfigsRequest) -> Seen {
    let latest = context.views.latest();
    let mut topics = request
        .resources
        .iter()
        .filter(|resource| resource.resource_type == TOPIC_RESOURCE);
    let current = if topics.all(|resource| latest.topic(&resource.resource_name).is_some()) {
        None
    } else {
        Some(context.views.refresh_current().await)
    };
    Seen { latest, current }
}

type Described = Result<Vec<DescribeConfigsResourceResult>, (ErrorCode, String)>;

fn result(
    resource: DescribeConfigsResource,
    described: Described,
    synonyms: bool,
    documentation: bool,
) -> DescribeConfigsResult {
    let (mut configs, error) = match described {
        Ok(configs) => (configs, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    // As in Kafka, an empty list asks for all of them too.
    if let Some(keys) = resource
        .configuration_keys
        .as_ref()
        .filter(|keys| !keys.is_empty())
    {
        configs.retain(|config| keys.contains(&config.name));
    }
    for config in &mut configs {
        if !synonyms {
            config.synonyms.clear();
        }
        config.documentation = config.documentation.take().filter(|_| documentation);
    }
    let (error_code, error_message) = super::verdict(error);
    DescribeConfigsResult {
        error_code,
        error_message,
        resource_type: resource.resource_type,
        resource_name: resource.resource_name,
        configs,
    }
}

fn describe_topic(seen: &Seen, name: &str) -> Described {
    let view = match &seen.current {
        None => &seen.latest,
        Some(_) if seen.latest.topic(name).is_some() => &seen.latest,
        Some(Ok(current)) => current,
        Some(Err(error)) => return Err((errors::of_call(error), error.to_string())),
    };
    let Some(topic) = view.topic(name) else {
        return Err((
            ErrorCode::UnknownTopicOrPartition,
            "there is no such topic".to_owned(),
        ));
    };
    let configs = config::describe_topic(view.level, &view.cluster_configs, &topic.topic.configs);
    Ok(configs.into_iter().map(described).collect())
}

fn described(config: config::Described) -> DescribeConfigsResourceResult {
    let synonyms = config.synonyms.into_iter();
    let synonyms = synonyms.map(|synonym| DescribeConfigsSynonym {
        name: Str::from_static(synonym.name),
        value: Some(Str::from(&synonym.value)),
        source: source_code(synonym.source),
    });
    DescribeConfigsResourceResult {
        name: Str::from_static(config.setting.name),
        value: Some(Str::from(&config.value)),
        read_only: false,
        config_source: source_code(config.source),
        is_sensitive: false,
        synonyms: synonyms.collect(),
        config_type: config.setting.kafka_type(),
        documentation: Some(Str::from_static(config.setting.meaning)),
    }
}

/// A broker resource is named by its node id. The empty name asks for the defaults of all brokers,
/// of which there are none.
fn describe_broker(context: &Context, name: &str) -> Described {
    // Only the plain decimal spelling counts, so that one request cannot describe a broker many
    // times.
    let id = name.parse::<i32>().ok();
    match id.filter(|id| id.to_string() == name) {
        _ if name.is_empty() => Ok(Vec::new()),
        Some(id) if id == context.agent.0 => Ok(context
            .settings
            .broker_configs
            .iter()
            .map(BrokerConfig::describe)
            .collect()),
        Some(id) => {
            let why = format!("this is broker {}, not {id}: ask that one", context.agent.0);
            Err((ErrorCode::InvalidRequest, why))
        }
        None => Err((
            ErrorCode::InvalidRequest,
            "a broker is named by its node id".to_owned(),
        )),
    }
}

impl BrokerConfig {
    fn describe(&self) -> DescribeConfigsResourceResult {
        let Setting {
            name,
            default,
            meaning,
            ..
        } = *self.setting;
        // What the process chose by itself is its default on this machine.
        let default = match self.is_derived {
            true => self.value.as_str(),
            false => default,
        };
        let source = if self.value == default {
            FROM_DEFAULT
        } else {
            FROM_BROKER
        };
        let synonym = |value: &str, source: i8| DescribeConfigsSynonym {
            name: Str::from_static(name),
            value: Some(Str::from(value)),
            source,
        };
        let mut synonyms = Vec::new();
        if source == FROM_BROKER {
            synonyms.push(synonym(&self.value, FROM_BROKER));
        }
        synonyms.push(synonym(default, FROM_DEFAULT));
        DescribeConfigsResourceResult {
            name: Str::from_static(name),
            value: Some(Str::from(&self.value)),
            // Every setting is fixed when the process starts.
            read_only: true,
            config_source: source,
            is_sensitive: false,
            synonyms,
            config_type: self.setting.kafka_type(),
            documentation: Some(Str::from_static(meaning)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_chose_is_its_default_and_what_was_given_is_the_brokers() {
        const SETTING: Setting = Setting::new(
            "fetch.cache.bytes",
            meta::setting::Kind::Share { min: 1, max: 9 },
            "0",
            "bytes",
            "Memory for something.",
        );
        for (is_derived, value, source, synonyms) in [
            (true, "7", FROM_DEFAULT, vec![("7", FROM_DEFAULT)]),
            (false, "0", FROM_DEFAULT, vec![("0", FROM_DEFAULT)]),
            (
                false,
                "8",
                FROM_BROKER,
                vec![("8", FROM_BROKER), ("0", FROM_DEFAULT)],
            ),
        ] {
            let config = BrokerConfig {
                setting: &SETTING,
                value: value.to_owned(),
                is_derived,
            };
            let described = config.describe();
            assert_eq!(described.value.as_deref(), Some(value));
            assert_eq!(described.config_source, source);
            let told = described.synonyms.iter();
            let told: Vec<_> = told
                .map(|synonym| (synonym.value.as_deref().unwrap_or(""), synonym.source))
                .collect();
            assert_eq!(told, synonyms);
        }
    }
}
