//! Checks of endpoints, names and credentials that people set, since the client library panics on
//! some bad ones later. It must not know which cloud they are for.

/// Endings of the variables that hold an endpoint.
const URLS: [&str; 9] = [
    "_ENDPOINT",
    "_ENDPOINT_URL",
    "_ENDPOINT_URL_S3",
    "_ENDPOINT_URL_STS",
    "_FULL_URI",
    "_BASE_URL",
    "_AUTHORITY_HOST",
    "_TOKEN_SERVICE_URL",
    "_PROXY_URL",
];

/// Refuses a value that is not `http://HOST[:PORT][/PATH]`; `name` is the setting that holds it.
pub(super) fn endpoint(name: &str, value: &str) -> Result<(), String> {
    if is_endpoint(value) {
        return Ok(());
    }
    Err(format!(
        "{name}={value:?} is no endpoint: write it as http://HOST:PORT or https://HOST"
    ))
}

fn is_endpoint(value: &str) -> bool {
    let rest = value
        .strip_prefix("http://")
        .or(value.strip_prefix("https://"));
    let Some(rest) = rest else {
        return false;
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let is_host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => is_name(host),
    };
    is_host
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && path.bytes().all(is_path_byte)
}

fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/._~-".contains(&byte)
}

/// Refuses a name that no cloud gives to a bucket, container, account or region.
pub(super) fn name(what: &str, value: &str) -> Result<(), String> {
    if is_name(value) {
        return Ok(());
    }
    Err(format!(
        "{what} {value:?} is not possible: it consists of letters, digits, '.', '_' and '-', and begins \
         with a letter or a digit"
    ))
}

fn is_name(value: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    value.len() <= 255
        && value.bytes().all(fits)
        && value.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// Refuses an environment variable that cannot be sent in a request. Its value may be a secret, so
/// the error does not show it.
pub(super) fn variable(name: &str, value: &str) -> Result<(), String> {
    // These variables hold whole documents, in which line feeds are fine.
    if name.ends_with("_SERVICE_ACCOUNT_KEY") || name.ends_with("_CA_CERTIFICATE") {
        return Ok(());
    }
    let is_url = URLS.iter().any(|end| name.ends_with(end));
    if is_url && name != "AZURE_USE_FABRIC_ENDPOINT" {
        return endpoint(name, value);
    }
    // These become parts of a URL.
    let names = ["_REGION", "_TENANT_ID", "_AUTHORITY_ID", "_ACCOUNT_NAME"];
    if names.iter().any(|end| name.ends_with(end)) {
        return self::name(name, value);
    }
    // It may have a query.
    let is_uri_byte = |byte| is_path_byte(byte) || b"?=&%".contains(&byte);
    if name.ends_with("_RELATIVE_URI")
        && !(value.starts_with('/') && value.bytes().all(is_uri_byte))
    {
        return Err(format!("{name} is no path: write it as /PATH"));
    }
    if value.trim() != value {
        return Err(format!(
            "{name} begins or ends with a space or a line feed: take it out (a secret made with \
             'echo' has one: 'echo -n' leaves it away)"
        ));
    }
    let is_path =
        name.ends_with("_FILE") || name.ends_with("_CREDENTIALS") || name.ends_with("_ACCOUNT");
    if value.contains(char::is_control) || !(is_path || value.is_ascii()) {
        return Err(format!(
            "{name} has a character that cannot be sent: take it out"
        ));
    }
    // The client library puts this file into a header as it is.
    if name == "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
        && let Ok(token) = std::fs::read_to_string(value)
        && token.contains(|letter: char| letter.is_control() || !letter.is_ascii())
    {
        return Err(format!(
            "the file {value} that {name} names has a line feed or another character that cannot be sent: \
             take it out (a file made with 'echo' ends with one: 'echo -n' leaves it away)"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_has_a_scheme_and_a_host() {
        for good in [
            "http://127.0.0.1:9000",
            "https://s3.example.com",
            "http://[::1]:9000/base/path",
            "http://minio_1/",
        ] {
            assert_eq!(endpoint("endpoint", good), Ok(()));
        }
        for bad in [
            "127.0.0.1:9000",
            "minio",
            "",
            "http://",
            "http://a b",
            "http://[::1",
            "http://h:99999",
            "http://h:",
            "http://h:0",
            "ftp://h",
            "http://u@h",
            "http://h/?q",
            "http://h/%zz",
            "http://h\n",
            "http://é",
        ] {
            let refused = endpoint("endpoint", bad).expect_err(bad);
            assert!(
                refused.contains("write it as http://HOST:PORT"),
                "{refused}"
            );
        }
    }

    #[test]
    fn variables_are_what_can_be_sent_and_secrets_are_not_shown() {
        for (name, good) in [
            ("AWS_SECRET_ACCESS_KEY", "a+b/c="),
            ("AWS_REGION", "eu-central-1"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/mein schlüssel"),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "{\n}\n"),
            ("AZURE_USE_FABRIC_ENDPOINT", "true"),
            ("AZURE_TENANT_ID", "72f988bf-86f1-41af-91ab-2d7cd011db47"),
            (
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "/v2/credentials/a-b",
            ),
        ] {
            assert_eq!(variable(name, good), Ok(()));
        }
        for (name, bad) in [
            ("AWS_ACCESS_KEY_ID", "hush\n"),
            ("AWS_SESSION_TOKEN", " hush"),
            ("AWS_SESSION_TOKEN", "hu\u{1}sh"),
            ("AWS_SECRET_ACCESS_KEY", "hushé"),
            ("AWS_REGION", "eu central"),
            ("AWS_REGION", "eu\n"),
            ("AWS_ENDPOINT", "http://h\n"),
            ("AWS_METADATA_ENDPOINT", "h"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "h"),
            ("AZURE_STORAGE_AUTHORITY_HOST", "h"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/a b"),
            ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", ":99999/x"),
            ("AZURE_TENANT_ID", "a b"),
            ("AZURE_STORAGE_ACCOUNT_NAME", "a b"),
        ] {
            let refused = variable(name, bad).expect_err(bad);
            assert!(refused.contains(name), "{refused}");
            assert!(!refused.contains("hu"), "{refused}");
        }
    }
}
