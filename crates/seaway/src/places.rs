//! Where a cluster's buckets are, as an operator says it: one URL, or three, each in a region of its own. It must not know how
//! buckets are opened.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

/// What several URLs begin with; the spellings of others are accepted.
const SEVERAL: [&str; 3] = ["multi://", "warpstream_multi://", "bufstream_multi://"];
/// What stands between two of them.
const BETWEEN: &str = "<>";
/// The parameter of an S3 URL that names a region.
const REGION: &str = "region=";

/// Where a cluster's buckets are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Places {
    One(String),
    Three(Box<[Place; 3]>),
}

/// A bucket in a region.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub url: String,
    pub region: String,
    pub rehearsal: Rehearsal,
}

/// How a bucket differs from what it is, in a cluster on one machine that looks like one in several regions.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rehearsal {
    /// A file that switches the bucket off while it is there.
    pub switch: Option<PathBuf>,
    /// How far away it looks: the round trip to it.
    pub round_trip: Duration,
    /// How much longer it takes to make an object.
    pub put: Duration,
    /// Files that say, while they are there, how many times as far away it looks.
    pub slow: Vec<PathBuf>,
}

impl Places {
    /// Reads one URL, or three; `regions` are theirs, in the same order.
    pub fn parse(text: &str, regions: &[String]) -> Result<Self> {
        let Some(several) = SEVERAL.iter().find_map(|form| text.strip_prefix(form)) else {
            if text.contains(BETWEEN) {
                bail!("several buckets are given as multi://URL{BETWEEN}URL{BETWEEN}URL");
            }
            return Ok(Places::One(text.to_owned()));
        };
        let urls: Vec<String> = several.split(BETWEEN).map(str::to_owned).collect();
        let Ok(urls) = <[String; 3]>::try_from(urls) else {
            bail!(
                "a cluster that spans regions has three buckets, multi://URL{BETWEEN}URL{BETWEEN}URL; {} are given",
                several.split(BETWEEN).count()
            );
        };
        let regions: [String; 3] = match regions.to_vec().try_into() {
            Ok(regions) => regions,
            Err(given) if given.is_empty() => named_by(&urls)?,
            Err(given) => bail!(
                "there are three buckets and {} --regions: name the region of each",
                given.len()
            ),
        };
        for (at, region) in regions.iter().enumerate() {
            if regions[..at].contains(region) {
                bail!(
                    "two buckets are in the region {region}: each has to be in another, so that no two are lost together"
                );
            }
            if urls[..at].contains(&urls[at]) {
                bail!(
                    "the bucket {} is given twice: give three different ones",
                    urls[at]
                );
            }
        }
        let mut places = urls.into_iter().zip(regions).map(|(url, region)| Place {
            url,
            region,
            rehearsal: Rehearsal::default(),
        });
        Ok(Places::Three(Box::new(std::array::from_fn(|_| {
            places
                .next()
                .unwrap_or_else(|| unreachable!("three URLs and regions"))
        }))))
    }

    /// The same buckets, which differ in each region from what they are.
    #[must_use]
    pub fn rehearsed(mut self, how: impl Fn(&str) -> Rehearsal) -> Self {
        if let Places::Three(places) = &mut self {
            for place in places.iter_mut() {
                place.rehearsal = how(&place.region);
            }
        }
        self
    }

    /// Refuses a region that has none of several buckets.
    pub fn check_region(&self, own: &str) -> Result<()> {
        let Places::Three(places) = self else {
            return Ok(());
        };
        if places.iter().any(|place| place.region == own) {
            return Ok(());
        }
        let regions: Vec<&str> = places.iter().map(|place| place.region.as_str()).collect();
        bail!(
            "the region {own} is none of the cluster's ({}): say with --region in which this process is",
            regions.join(", ")
        )
    }
}

/// The regions that URLs name themselves.
fn named_by(urls: &[String; 3]) -> Result<[String; 3]> {
    let region = |url: &str| {
        let (_, parameters) = url.split_once('?')?;
        let region = parameters
            .split('&')
            .find_map(|parameter| parameter.strip_prefix(REGION))?;
        Some(region.to_owned())
    };
    let mut regions = [const { String::new() }; 3];
    for (url, named) in urls.iter().zip(&mut regions) {
        match region(url) {
            Some(region) => *named = region,
            None => {
                bail!("in which region is the bucket {url}? Say with --regions A,B,C where each is")
            }
        }
    }
    Ok(regions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, regions: &[&str]) -> Result<Places> {
        let regions: Vec<String> = regions.iter().map(|&region| region.to_owned()).collect();
        Places::parse(text, &regions)
    }

    #[test]
    fn one_url_is_one_bucket_and_three_are_in_three_regions() {
        let one = parse("s3://a?region=b", &[]).expect("one");
        assert_eq!(one, Places::One("s3://a?region=b".to_owned()));
        let place = |url: &str, region: &str| Place {
            url: url.to_owned(),
            region: region.to_owned(),
            rehearsal: Rehearsal::default(),
        };
        let expected = Places::Three(Box::new([
            place("s3://a", "x"),
            place("gs://b", "y"),
            place("az://c", "z"),
        ]));
        for form in SEVERAL {
            let text = format!("{form}s3://a<>gs://b<>az://c");
            assert_eq!(parse(&text, &["x", "y", "z"]).expect("three"), expected);
        }
        expected.check_region("y").expect("one of them");
        let told = expected
            .check_region("w")
            .expect_err("none of them")
            .to_string();
        assert!(
            told.contains("x, y, z") && told.contains("--region"),
            "{told}"
        );
        let named = parse(
            "multi://s3://a?region=x<>s3://b?allow_http=true&region=y<>s3://c?region=z",
            &[],
        );
        assert!(matches!(named.expect("named"), Places::Three(places) if places[1].region == "y"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_can() {
        for (text, regions, hint) in [
            ("a<>b<>c", &["x", "y", "z"][..], "multi://"),
            ("multi://a<>b", &["x", "y"], "2 are given"),
            ("multi://a<>b<>c", &[], "--regions"),
            ("multi://a<>b<>c", &["x", "y"], "2 --regions"),
            ("multi://a<>b<>c", &["x", "y", "x"], "the region x"),
            ("multi://a<>b<>a", &["x", "y", "z"], "given twice"),
        ] {
            let why = parse(text, regions).expect_err("refused").to_string();
            assert!(why.contains(hint), "{text}: {why}");
        }
    }
}
