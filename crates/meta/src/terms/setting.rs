//! What a setting is, whoever's it is: a row with name, kind, default, unit, scope and a sentence. Every setting of the
//! product is one such row in one table. It must not know what a setting does.

const HARMLESS: &str = "Accepted for tools that set it; without disks it changes nothing.";

/// Bounds of texts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest name, host, region or zone in bytes.
    pub name_bytes_max: usize,
    /// Longest value of a config in bytes.
    pub value_bytes_max: usize,
    /// Longest number in bytes: it is kept as it came, with spaces and leading zeros.
    pub number_bytes_max: usize,
}

/// What values a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number within bounds, both included.
    Integer {
        min: i64,
        max: i64,
    },
    /// A number of bytes within bounds, or 0: the process takes a share of the memory that it has.
    Share {
        min: i64,
        max: i64,
    },
    /// `true` or `false`.
    Boolean,
    /// A decimal fraction from 0 to 1.
    Fraction,
    Choice(&'static [&'static str]),
    /// A list of which only this value is possible yet; the text says why.
    Only(&'static str, &'static str),
    /// A name or an IP address, without a port.
    Host,
    /// A word that the cluster keeps with each node.
    Label {
        may_be_empty: bool,
    },
    /// One line of text.
    Text,
}

/// Whose value it is, and who changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Of a process, from its start to its end.
    Process,
    /// Of the cluster: journaled, the same everywhere.
    Cluster,
    /// Of one topic: journaled.
    Topic,
}

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    /// What holds where nothing is set.
    pub default: &'static str,
    /// The unit of the value; empty for plain numbers, words and texts.
    pub unit: &'static str,
    pub scope: Scope,
    /// What it does, in a sentence.
    pub meaning: &'static str,
    /// For a topic's: the cluster's setting that holds where the topic says nothing.
    pub cluster: Option<&'static str>,
    /// Whether it changes anything; the others are accepted for tools that set them.
    pub has_effect: bool,
}

impl Setting {
    /// A setting of a process; the other scopes are made from one.
    pub const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        unit: &'static str,
        meaning: &'static str,
    ) -> Self {
        Setting {
            name,
            kind,
            default,
            unit,
            scope: Scope::Process,
            meaning,
            cluster: None,
            has_effect: true,
        }
    }

    /// A config of topics; `cluster` names that of the cluster which holds where a topic says nothing.
    pub(crate) const fn of_topic(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        unit: &'static str,
        cluster: Option<&'static str>,
        meaning: &'static str,
    ) -> Self {
        Setting {
            scope: Scope::Topic,
            cluster,
            ..Setting::new(name, kind, default, unit, meaning)
        }
    }

    /// A config of topics that changes nothing.
    pub(crate) const fn harmless(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        unit: &'static str,
    ) -> Self {
        Setting {
            has_effect: false,
            ..Setting::of_topic(name, kind, default, unit, None, HARMLESS)
        }
    }

    pub(crate) const fn of_cluster(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        unit: &'static str,
        meaning: &'static str,
    ) -> Self {
        Setting {
            scope: Scope::Cluster,
            ..Setting::new(name, kind, default, unit, meaning)
        }
    }

    /// Kafka's number of the type of its values (`ConfigDef.Type` as DescribeConfigs sends it).
    pub fn kafka_type(&self) -> i8 {
        match self.kind {
            Kind::Boolean => 1,
            Kind::Choice(_) | Kind::Host | Kind::Label { .. } | Kind::Text => 2,
            Kind::Integer { max, .. } if max <= i64::from(i32::MAX) => 3,
            Kind::Integer { .. } | Kind::Share { .. } => 5,
            Kind::Fraction => 6,
            Kind::Only(..) => 7,
        }
    }

    fn is_number(&self) -> bool {
        matches!(
            self.kind,
            Kind::Integer { .. } | Kind::Share { .. } | Kind::Fraction
        )
    }

    /// Whether a value may be set; if not, what is wrong with it.
    pub fn check(&self, limits: &Limits, value: &str) -> Result<(), String> {
        let name = self.name;
        let most = limits.value_bytes_max;
        if value.len() > most {
            return Err(format!("{name}: a value has at most {most} bytes"));
        }
        let most = limits.number_bytes_max;
        if self.is_number() && value.len() > most {
            return Err(format!("{name}: a number has at most {most} bytes"));
        }
        let checked = match self.kind {
            Kind::Integer { min, max } => check_integer(value, min, max),
            Kind::Share { min, max } => check_share(value, min, max),
            Kind::Boolean if value == "true" || value == "false" => Ok(()),
            Kind::Boolean => Err("must be true or false".to_owned()),
            Kind::Fraction if is_fraction(value) => Ok(()),
            Kind::Fraction => Err("must be a number from 0 to 1".to_owned()),
            Kind::Choice(words) if words.contains(&value) => Ok(()),
            Kind::Choice(words) => Err(format!("must be one of {}", words.join(", "))),
            Kind::Only(only, _) if value == only => Ok(()),
            Kind::Only(_, why) => Err(why.to_owned()),
            Kind::Label { may_be_empty } => check_label(limits, value, may_be_empty),
            Kind::Host => check_length(limits, value),
            Kind::Text if value.contains(['\n', '\r']) => Err("must be one line".to_owned()),
            Kind::Text => Ok(()),
        };
        checked.map_err(|why| format!("{name}={value}: {why}"))
    }
}

fn check_integer(value: &str, min: i64, max: i64) -> Result<(), String> {
    match value.trim_ascii().parse::<i64>() {
        Ok(number) if number < min => Err(format!("the least value is {min}")),
        Ok(number) if number > max => Err(format!("the greatest value is {max}")),
        Ok(_) => Ok(()),
        Err(_) => Err("must be a whole number".to_owned()),
    }
}

fn check_share(value: &str, min: i64, max: i64) -> Result<(), String> {
    match value.trim_ascii().parse::<i64>() {
        Ok(0) => Ok(()),
        Ok(number) if number < min => Err(format!(
            "the least value is {min}, or 0 for a share of memory.bytes"
        )),
        _ => check_integer(value, min, max),
    }
}

/// Judged without arithmetic, so that every replica judges alike.
fn is_fraction(value: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match value.split_once('.') {
        None => value == "0" || value == "1",
        Some(("1", rest)) => digits(rest) && rest.bytes().all(|digit| digit == b'0'),
        Some((whole, rest)) => whole == "0" && digits(rest),
    }
}

fn check_label(limits: &Limits, label: &str, may_be_empty: bool) -> Result<(), String> {
    if label.is_empty() && !may_be_empty {
        return Err("must not be empty".to_owned());
    }
    if label.contains(char::is_control) {
        return Err("must not have control characters".to_owned());
    }
    check_length(limits, label)
}

/// Whether the state machine takes a text as something that a node says of itself.
fn check_length(limits: &Limits, text: &str) -> Result<(), String> {
    let (bytes, most) = (text.len(), limits.name_bytes_max);
    if bytes > most {
        return Err(format!("it has {bytes} bytes, of which {most} are allowed"));
    }
    Ok(())
}
