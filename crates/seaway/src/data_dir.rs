//! The directory of one node on this machine (docs/formats/data-directory.md): who may use it, and
//! what is in it. It must not know what lies in the bucket.
//!
//! ```text
//! DIR/seaway.json      what this directory is: format version, cluster id once known
//! DIR/lock             locked by the process that uses the directory
//! DIR/endpoints.json   where the running process listens; absent when none runs
//! DIR/certs/           certificates of the processes of a cluster of several
//! DIR/bucket/          the bucket, unless --bucket names another
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The version of the directory's layout that this binary writes, and the greatest it reads.
const FORMAT: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    seaway_data_directory: u32,
    cluster_id: Option<String>,
}

/// A data directory, locked by this process until dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
    cluster_id: Option<String>,
}

/// Where a running node listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Address for Kafka clients, host:port.
    pub kafka: String,
    /// Base of the HTTP pages.
    pub http: String,
    pub cluster_id: String,
    pub pid: u32,
    /// The processes of the cluster, if it has more than one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeEndpoints>,
}

/// Where one process of a cluster listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEndpoints {
    pub name: String,
    /// `control` or `agent`.
    pub role: String,
    /// Its region, in a cluster of several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    pub zone: String,
    /// The version of the build that was started last.
    #[serde(default)]
    pub version: String,
    /// `None` while it does not run.
    pub pid: Option<u32>,
    /// Of an agent: address for Kafka clients, host:port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<String>,
    /// Of a control node: where agents and other control nodes reach it, host:port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// Base of the HTTP pages.
    pub http: String,
    pub cluster_id: String,
}

impl NodeEndpoints {
    /// Where those reach it that it is for.
    pub fn address(&self) -> &str {
        let told = self.kafka.as_deref().or(self.control.as_deref());
        told.unwrap_or_default()
    }

    /// Writes them to a file that others read.
    pub fn publish(&self, file: &Path) -> Result<()> {
        replace(file, &serde_json::to_vec_pretty(self)?)
    }

    /// Reads what a process has written; `None` if it has not yet.
    pub fn read(file: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }
}

impl DataDir {
    /// Opens the directory, making it if it is not there.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        fs::create_dir_all(path)
            .with_context(|| format!("cannot make the data directory {shown}"))?;
        let marker_path = path.join("seaway.json");
        let marker = match fs::read(&marker_path) {
            Ok(bytes) => Some(read_marker(path, &bytes)?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot read {}", marker_path.display()));
            }
        };
        if marker.is_none() && !holds_nothing_else(path)? {
            bail!(
                "{shown} is not empty and not a Seaway data directory; \
                 choose another with --data-dir"
            );
        }
        let lock = lock(path)?;
        let mut directory = DataDir {
            path: path.to_owned(),
            _lock: lock,
            cluster_id: marker.as_ref().and_then(|marker| marker.cluster_id.clone()),
        };
        if marker.is_none() {
            directory.write_marker(None)?;
        }
        Ok(directory)
    }

    /// The cluster that this directory belongs to, once it has been in use.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// Binds the directory to a cluster, or checks that it is bound to this one.
    pub fn bind(&mut self, cluster_id: &str) -> Result<()> {
        match &self.cluster_id {
            Some(ours) if ours == cluster_id => Ok(()),
            Some(ours) => bail!(
                "{} belongs to cluster {ours}, but the bucket to cluster {cluster_id}; \
                 give the bucket that goes with the directory, or another --data-dir",
                self.path.display()
            ),
            None => self.write_marker(Some(cluster_id.to_owned())),
        }
    }

    /// Where the processes of a cluster of several keep their logs, and say where they listen.
    pub fn nodes(&self) -> Result<PathBuf> {
        let path = self.path.join("nodes");
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// The certificates by which the processes of a cluster of several know each other.
    pub fn certificates(&self) -> PathBuf {
        self.path.join("certs")
    }

    pub fn bucket(&self) -> PathBuf {
        self.path.join("bucket")
    }

    /// The bucket of a region, of a cluster that spans several.
    pub fn bucket_of(&self, region: &str) -> PathBuf {
        self.path.join("buckets").join(region)
    }

    /// Writes where this process listens, for other programs.
    pub fn publish(&self, endpoints: &Endpoints) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(endpoints)?;
        replace(&self.path.join("endpoints.json"), &bytes)
    }

    /// Removes what [`publish`](Self::publish) wrote.
    pub fn withdraw(&self) -> Result<()> {
        match fs::remove_file(self.path.join("endpoints.json")) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn write_marker(&mut self, cluster_id: Option<String>) -> Result<()> {
        let marker = Marker {
            seaway_data_directory: FORMAT,
            cluster_id,
        };
        replace(
            &self.path.join("seaway.json"),
            &serde_json::to_vec_pretty(&marker)?,
        )?;
        self.cluster_id = marker.cluster_id;
        Ok(())
    }
}

/// Reads where the process that uses `path` listens.
pub fn published(path: &Path) -> Result<Endpoints> {
    let file = path.join("endpoints.json");
    let bytes = fs::read(&file).with_context(|| {
        format!(
            "no node is ready in {}: cannot read {}; one that is starting tells at its --http address what it waits \
             for (`seaway status --http http://HOST:PORT`); if there is none, start `seaway dev` or name another \
             --data-dir",
            path.display(),
            file.display()
        )
    })?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", file.display()))
}

fn read_marker(path: &Path, bytes: &[u8]) -> Result<Marker> {
    let shown = path.display();
    // The version is read first: a newer layout may have fields that this binary cannot know.
    let value: serde_json::Value = serde_json::from_slice(bytes).with_context(|| {
        format!("{shown}/seaway.json is damaged; restore it, or choose another --data-dir")
    })?;
    match value
        .get("seaway_data_directory")
        .and_then(serde_json::Value::as_u64)
    {
        Some(version) if version > u64::from(FORMAT) => bail!(
            "{shown} was written by a newer Seaway (layout {version}, this one knows {FORMAT}); \
             use that version"
        ),
        Some(_) => serde_json::from_value(value)
            .with_context(|| format!("{shown}/seaway.json is damaged; restore it")),
        None => bail!("{shown} belongs to something else; choose another with --data-dir"),
    }
}

/// True if the directory holds nothing but what an interrupted first start leaves, and what a new
/// file system has.
fn holds_nothing_else(path: &Path) -> Result<bool> {
    for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
        let name = entry?.file_name();
        if name != "lock" && name != "seaway.json.new" && name != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn lock(path: &Path) -> Result<File> {
    let file_path = path.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&file_path)
        .with_context(|| format!("cannot open {}", file_path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "another process uses {}; stop it, or choose another --data-dir",
            path.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", file_path.display()))
        }
    }
}

/// Replaces a file by `bytes` so that a crash leaves the old or the new one, whole.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let fresh = path.with_extension("json.new");
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        if let Some(parent) = path.parent() {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        format!("{:#}", DataDir::open(path).expect_err("must be refused"))
    }

    #[test]
    fn a_directory_is_used_by_one_process_at_a_time_and_kept() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("data");
        let mut first = DataDir::open(&path).expect("a new directory");
        assert!(refusal(&path).contains("another process uses"));
        first.bind("AAAA").expect("not bound yet");
        drop(first);
        let mut again = DataDir::open(&path).expect("ours");
        assert_eq!(again.cluster_id(), Some("AAAA"));
        assert!(
            again
                .bind("BBBB")
                .expect_err("another cluster")
                .to_string()
                .contains("AAAA")
        );
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let home = tempfile::tempdir().expect("a directory");
        fs::write(home.path().join("thesis.txt"), "years of work").expect("written");
        assert!(refusal(home.path()).contains("not a Seaway data directory"));
        assert!(!home.path().join("lock").exists());
    }

    #[test]
    fn the_root_of_a_new_file_system_is_empty_enough() {
        let home = tempfile::tempdir().expect("a directory");
        fs::create_dir(home.path().join("lost+found")).expect("made");
        DataDir::open(home.path()).expect("as good as empty");
    }

    /// The example of docs/formats/data-directory.md behind the fence of this name.
    fn example(fence: &str) -> &'static str {
        let page = include_str!("../../../docs/formats/data-directory.md");
        let fence = format!("```{fence}\n");
        let (_, example) = page.split_once(&fence).expect("it is there");
        example.split_once("\n```").expect("it ends").0
    }

    #[test]
    fn the_worked_examples_are_what_the_code_writes() {
        let home = tempfile::tempdir().expect("a directory");
        let mut directory = DataDir::open(home.path()).expect("a new directory");
        let written = |name: &str| fs::read_to_string(home.path().join(name)).expect("written");
        directory.bind("4L6g3nShT-eMCtK--X86sw").expect("not bound");
        assert_eq!(written("seaway.json"), example("marker"));
        let endpoints = Endpoints {
            kafka: "localhost:9092".to_owned(),
            http: "http://127.0.0.1:8080".to_owned(),
            cluster_id: "4L6g3nShT-eMCtK--X86sw".to_owned(),
            pid: 4711,
            nodes: Vec::new(),
        };
        directory.publish(&endpoints).expect("told");
        assert_eq!(written("endpoints.json"), example("endpoints"));
        assert_eq!(published(home.path()).expect("readable"), endpoints);
        directory.withdraw().expect("taken back");
        drop(directory);
        let again = DataDir::open(home.path()).expect("ours");
        assert_eq!(again.cluster_id(), Some("4L6g3nShT-eMCtK--X86sw"));
    }

    #[test]
    fn a_node_that_is_starting_may_be_there_though_it_tells_nothing_yet() {
        let home = tempfile::tempdir().expect("a directory");
        let _starting = DataDir::open(home.path()).expect("a new directory");
        let error = published(home.path())
            .expect_err("nothing is told")
            .to_string();
        assert!(error.starts_with("no node is ready in"), "{error}");
        assert!(error.contains("seaway status --http"), "{error}");
        assert!(error.contains("start `seaway dev`"), "{error}");
    }

    #[test]
    fn a_newer_layout_is_refused() {
        let home = tempfile::tempdir().expect("a directory");
        let newer = r#"{"seaway_data_directory": 2, "invented_later": true}"#;
        fs::write(home.path().join("seaway.json"), newer).expect("written");
        assert!(refusal(home.path()).contains("newer Seaway"));
    }
}
