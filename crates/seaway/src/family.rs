//! The processes of `seaway dev --agents N --control M`: started, watched, and one by one started again on request. It must not
//! know what they do.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures::FutureExt;
use hyper::StatusCode;
use link::process::{Process, Role};
use tokio::sync::{mpsc, oneshot};

use crate::address::Address;
use crate::data_dir::{DataDir, Endpoints, NodeEndpoints};
use crate::health::Health;
use crate::http::{Actions, Page};
use crate::issuing::{Ca, Existing, Wanted};
use crate::output::say;
use crate::running::{Signals, listen};

/// What Linux adds to the path of a program whose file was replaced or removed.
const GONE: &[u8] = b" (deleted)";
/// How often the processes are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A process that is killed has ended within this time, which is less than who asks for that waits for the answer.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// How long a process may take to end before it is killed. Nobody waits for clients to leave when all end together.
const END_LIMIT: Duration = Duration::from_secs(8);
/// Requests that may wait.
const REQUESTS: usize = 16;
/// For how long the certificates of one start hold, in days.
const CERTIFICATE_DAYS: u32 = 3_650;

pub struct Plan {
    pub bucket: String,
    /// The regions that it spans, each with so many processes of each role as the roles say; none: it is in one.
    pub regions: Vec<String>,
    /// The round trips that their processes are to find between the first and the second region, the first and the third, and
    /// the second and the third, in milliseconds; and how much longer buckets are to take to make an object.
    pub wan_ms: Option<[u64; 3]>,
    pub put_ms: u64,
    /// Where the first agent listens; the others take free ports of the same host.
    pub kafka: Address,
    pub control: Kind,
    pub agents: Kind,
    /// The processes of a role are in these, one after another; if there are none, where the settings say.
    pub zones: Vec<String>,
    /// Variables of the environment that they must not find, since what these say is in their flags.
    pub hidden: Vec<String>,
    /// Base of this process's own pages.
    pub http: String,
}

/// The processes of one role.
pub struct Kind {
    pub count: u32,
    /// Settings of each of them, NAME=VALUE.
    pub set: Vec<String>,
}

/// What somebody wants done.
pub enum Action {
    /// Start the process of this name, unless it runs.
    Start(String),
    /// Lose the region: its processes are killed, and its bucket answers nobody.
    Kill(String),
    /// Have the region back.
    Restore(String),
}

impl Action {
    fn parse(path: &str) -> Option<Self> {
        let of = |what: &str, verb: &str| {
            let named = path.strip_prefix(what)?.strip_suffix(verb)?;
            Some(named.to_owned())
        };
        of("/nodes/", "/start")
            .map(Action::Start)
            .or_else(|| of("/regions/", "/kill").map(Action::Kill))
            .or_else(|| of("/regions/", "/restore").map(Action::Restore))
    }
}

/// An action, and whom to tell what came of it.
pub struct Asked {
    action: Action,
    done: oneshot::Sender<Result<()>>,
}

/// What is done by POST.
pub fn actions() -> (Actions, mpsc::Receiver<Asked>) {
    let (requests, taken) = mpsc::channel(REQUESTS);
    let actions: Actions = Arc::new(move |path: &str| {
        let Some(action) = Action::parse(path) else {
            return futures::future::ready(None).boxed();
        };
        let (done, outcome) = oneshot::channel();
        let sent = requests.try_send(Asked { action, done });
        async move { Some(outcome_page(sent.is_ok(), outcome).await) }.boxed()
    });
    (actions, taken)
}

async fn outcome_page(is_taken: bool, outcome: oneshot::Receiver<Result<()>>) -> Page {
    if !is_taken {
        return Page::text(StatusCode::TOO_MANY_REQUESTS, "too many requests\n");
    }
    match outcome.await {
        Ok(Ok(())) => Page::text(StatusCode::OK, "done\n"),
        Ok(Err(why)) => Page::text(StatusCode::CONFLICT, format!("{why:#}\n")),
        Err(_) => Page::text(StatusCode::SERVICE_UNAVAILABLE, "the cluster ends\n"),
    }
}

/// One process, whether it runs or not.
struct Member {
    role: Role,
    name: String,
    /// Its region, in a cluster of several.
    region: Option<String>,
    arguments: Vec<String>,
    hidden: Vec<String>,
    /// Where it says where it listens.
    file: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    /// It was started, and has not said yet where it listens.
    is_awaited: bool,
    /// It was asked to end, so that its end is no news.
    is_ending: bool,
    endpoints: Option<NodeEndpoints>,
}

/// Runs the processes until a signal comes.
pub async fn run(
    plan: Plan,
    mut directory: DataDir,
    mut requests: mpsc::Receiver<Asked>,
    health: &Health,
    stop: &mut Signals,
) -> Result<()> {
    let certificates = directory.certificates();
    let mut family = Family::of(&plan, &directory.nodes()?, &certificates).await?;
    family.certify(&certificates)?;
    let outcome = tokio::select! {
        outcome = family.serve(&plan, &mut directory, &mut requests, health) => outcome,
        () = stop.wait() => Ok(()),
    };
    directory.withdraw()?;
    health.stopping();
    family.end().await;
    outcome
}

/// The zone of the process that has this number in its role, from 1 on.
fn zone_of(zones: &[String], number: u32) -> Option<&str> {
    let turn = usize::try_from(number.checked_sub(1)?).ok()?;
    let turn = turn.checked_rem(zones.len())?;
    zones.get(turn).map(String::as_str)
}

/// Ports that nothing listens on, so that a process which starts again comes back where it was. Each is kept until all
/// are found, so that none is found twice.
#[derive(Default)]
struct FreePorts {
    kept: Vec<host::net::TcpListener>,
}

impl FreePorts {
    async fn find(&mut self, host: &str) -> Result<Address> {
        let any = Address {
            host: host.to_owned(),
            port: 0,
        };
        let listener = listen(&any, "--kafka").await?;
        let port = listener.local_addr()?.port();
        self.kept.push(listener);
        Ok(Address { port, ..any })
    }
}

/// A directory for the files that switch buckets off.
fn make_switches(directory: &Path) -> Result<PathBuf> {
    let switches = directory.join("away");
    std::fs::create_dir_all(&switches)
        .with_context(|| format!("cannot make {}", switches.display()))?;
    Ok(switches)
}

struct Family {
    members: Vec<Member>,
    /// Directory of the files that switch buckets off.
    switches: PathBuf,
}

impl Family {
    async fn of(plan: &Plan, directory: &Path, certificates: &Path) -> Result<Self> {
        let switches = make_switches(directory)?;
        let mut ports = FreePorts::default();
        let mut nodes: Vec<(Option<&String>, String)> = Vec::new();
        for (region, _) in plan.processes(Role::Control) {
            nodes.push((region, ports.find("127.0.0.1").await?.to_string()));
        }
        let member = |role: Role, region: Option<&String>, number: u32, listen: String| {
            let kind = plan.kind(role);
            let own = format!("{}-{number}", role.word());
            let name = region.map_or_else(|| own.clone(), |region| format!("{region}-{own}"));
            let flag = match role {
                Role::Agent => "--kafka",
                Role::Control => "--listen",
            };
            let file = directory.join(format!("{name}.json"));
            let mut arguments = vec![role.word().to_owned(), "--with-parent".to_owned()];
            for (flag, value) in [
                ("--name", name.clone()),
                ("--bucket", plan.bucket.clone()),
                (flag, listen),
                ("--http", "127.0.0.1:0".to_owned()),
                ("--endpoints", file.to_string_lossy().into_owned()),
                ("--tls-dir", certificates.to_string_lossy().into_owned()),
            ] {
                arguments.extend([flag.to_owned(), value]);
            }
            if let Some(zone) = zone_of(&plan.zones, number) {
                arguments.extend(["--zone".to_owned(), zone.to_owned()]);
            }
            if let Some(region) = region {
                for (flag, value) in plan.of_region(region, &switches, &nodes) {
                    arguments.extend([flag.to_owned(), value]);
                }
            }
            for set in &kind.set {
                arguments.extend(["--set".to_owned(), set.clone()]);
            }
            Member {
                role,
                log: directory.join(format!("{name}.log")),
                name,
                region: region.cloned(),
                arguments,
                hidden: plan.hidden.clone(),
                file,
                child: None,
                is_awaited: false,
                is_ending: false,
                endpoints: None,
            }
        };
        let mut members = Vec::new();
        for ((region, number), (_, address)) in
            plan.processes(Role::Control).into_iter().zip(&nodes)
        {
            members.push(member(Role::Control, region, number, address.clone()));
        }
        let mut is_first = plan.kafka.port != 0;
        for (region, number) in plan.processes(Role::Agent) {
            let address = match std::mem::take(&mut is_first) {
                true => plan.kafka.clone(),
                false => ports.find(&plan.kafka.host).await?,
            };
            let address = address.to_string();
            members.push(member(Role::Agent, region, number, address));
        }
        Ok(Family { members, switches })
    }

    /// Does what somebody asked for.
    async fn perform(&mut self, action: &Action) -> Result<()> {
        match action {
            Action::Start(name) => {
                let member = self.members.iter_mut().find(|member| member.name == *name);
                let member = member.with_context(|| format!("there is no process {name}"))?;
                member.look();
                match &member.child {
                    None => member.start(),
                    Some(child) => bail!("{name} runs already, as process {}", child.id()),
                }
            }
            Action::Kill(region) => {
                let switch = self.switch(region)?;
                std::fs::write(&switch, "")
                    .with_context(|| format!("cannot write {}", switch.display()))?;
                tracing::warn!(
                    region,
                    "the region is lost: its bucket answers nobody, its processes are killed"
                );
                self.of_region(region).for_each(Member::kill);
                self.is_gone(region).await
            }
            Action::Restore(region) => {
                let switch = self.switch(region)?;
                if let Err(error) = std::fs::remove_file(&switch)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    bail!("cannot remove {}: {error}", switch.display());
                }
                tracing::info!(region, "the region is back");
                let mut ended = self
                    .of_region(region)
                    .filter(|member| member.child.is_none());
                ended.try_for_each(Member::start)
            }
        }
    }

    /// Waits until no process of the region runs any more, since one that was killed takes a moment to end, and is not started before.
    async fn is_gone(&mut self, region: &str) -> Result<()> {
        let until = host::clock::now() + GONE_WITHIN;
        loop {
            self.of_region(region).for_each(Member::look);
            match self.of_region(region).find(|member| member.child.is_some()) {
                None => return Ok(()),
                Some(member) if host::clock::now() >= until => {
                    let within = GONE_WITHIN.as_secs();
                    bail!(
                        "{} was killed, and has not ended within {within} s",
                        member.name
                    )
                }
                Some(_) => host::clock::sleep(LOOK_EVERY).await,
            }
        }
    }

    fn of_region(&mut self, region: &str) -> impl Iterator<Item = &mut Member> {
        let members = self.members.iter_mut();
        members.filter(move |member| member.region.as_deref() == Some(region))
    }

    /// The file that switches off the bucket of a region.
    fn switch(&mut self, region: &str) -> Result<PathBuf> {
        if self.of_region(region).next().is_none() {
            bail!("there is no region {region}");
        }
        Ok(self.switches.join(region))
    }

    /// Issues a certificate to each, by a CA made anew, so that none has expired.
    fn certify(&self, directory: &Path) -> Result<()> {
        let ca = Ca::make(directory, CERTIFICATE_DAYS, Existing::Replace)?;
        for member in &self.members {
            let wanted = Wanted {
                process: Process {
                    role: member.role,
                    name: member.name.clone(),
                },
                hosts: Vec::new(),
                days: CERTIFICATE_DAYS,
            };
            ca.issue(&wanted, Existing::Replace)?;
        }
        Ok(())
    }

    /// Starts all, says where they are once all are ready, and starts those again that somebody asks for.
    async fn serve(
        &mut self,
        plan: &Plan,
        directory: &mut DataDir,
        requests: &mut mpsc::Receiver<Asked>,
        health: &Health,
    ) -> Result<()> {
        for member in &mut self.members {
            member.start()?;
        }
        while let Some(waiting) = self
            .members
            .iter()
            .find(|member| member.endpoints.is_none())
        {
            health.waiting(&format!("{} is not ready yet", waiting.name));
            host::clock::sleep(LOOK_EVERY).await;
            for member in &mut self.members {
                member.look();
                if member.child.is_none() {
                    bail!(
                        "{} ended before it was ready; its log is {}",
                        member.name,
                        member.log.display()
                    );
                }
            }
        }
        let mut told = self.publish(plan, directory)?;
        health.all_serve();
        // A cluster goes on even if nobody reads its output.
        drop(announce(&told));
        loop {
            tokio::select! {
                Some(Asked { action, done }) = requests.recv() => {
                    let outcome = self.perform(&action).await;
                    if let Err(error) = &outcome {
                        tracing::error!(error = %format!("{error:#}"), "what was asked for is not done");
                    }
                    // Who has asked may not wait any more.
                    drop(done.send(outcome));
                }
                () = host::clock::sleep(LOOK_EVERY) => {}
            }
            self.members.iter_mut().for_each(Member::look);
            if self.nodes() != told.nodes {
                told = self.publish(plan, directory)?;
            }
        }
    }

    fn nodes(&self) -> Vec<NodeEndpoints> {
        let nodes = self.members.iter().filter_map(|member| {
            let pid = member.child.as_ref().map(Child::id);
            let endpoints = member.endpoints.clone()?;
            Some(NodeEndpoints { pid, ..endpoints })
        });
        nodes.collect()
    }

    fn publish(&self, plan: &Plan, directory: &mut DataDir) -> Result<Endpoints> {
        let nodes = self.nodes();
        let mut agents = nodes.iter().filter(|node| node.role == "agent");
        let cluster_id = nodes
            .first()
            .map_or_else(String::new, |node| node.cluster_id.clone());
        directory.bind(&cluster_id)?;
        let endpoints = Endpoints {
            kafka: agents
                .next()
                .map_or_else(String::new, |agent| agent.address().to_owned()),
            http: plan.http.clone(),
            cluster_id,
            pid: std::process::id(),
            nodes,
        };
        directory.publish(&endpoints)?;
        Ok(endpoints)
    }

    /// Asks all to end, agents first, and kills those that do not.
    async fn end(&mut self) {
        for role in [Role::Agent, Role::Control] {
            let of_role = || (0..self.members.len()).filter(|at| self.members[*at].role == role);
            let of_role: Vec<usize> = of_role().collect();
            for at in &of_role {
                let member = &mut self.members[*at];
                member.is_ending = true;
                if let Some(child) = &member.child {
                    drop(host::process::signal(child.id(), "TERM"));
                }
            }
            let end = host::clock::now() + END_LIMIT;
            while of_role.iter().any(|at| self.members[*at].child.is_some())
                && host::clock::now() < end
            {
                host::clock::sleep(LOOK_EVERY).await;
                of_role.iter().for_each(|at| self.members[*at].look());
            }
        }
        for child in self
            .members
            .iter_mut()
            .filter_map(|member| member.child.as_mut())
        {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

impl Drop for Family {
    fn drop(&mut self) {
        // Of an end in between: nothing that was started may stay behind.
        for child in self
            .members
            .iter_mut()
            .filter_map(|member| member.child.as_mut())
        {
            drop(child.kill());
        }
    }
}

impl Plan {
    fn kind(&self, role: Role) -> &Kind {
        match role {
            Role::Agent => &self.agents,
            Role::Control => &self.control,
        }
    }

    /// The round trip between two regions.
    fn round_trip_ms(&self, one: &str, other: &str) -> u64 {
        let at = |region: &str| self.regions.iter().position(|known| known == region);
        let (Some([ab, ac, bc]), Some(one), Some(other)) = (self.wan_ms, at(one), at(other)) else {
            return 0;
        };
        match (one.min(other), one.max(other)) {
            (0, 1) => ab,
            (0, 2) => ac,
            (1, 2) => bc,
            _ => 0,
        }
    }

    /// What a process of a region is told of that.
    fn of_region(
        &self,
        region: &str,
        switches: &Path,
        nodes: &[(Option<&String>, String)],
    ) -> Vec<(&'static str, String)> {
        let mut told = vec![
            ("--region", region.to_owned()),
            ("--regions", self.regions.join(",")),
            ("--switches", switches.to_string_lossy().into_owned()),
            ("--put-ms", self.put_ms.to_string()),
        ];
        told.extend(self.far_from(region, nodes));
        told
    }

    /// What a process of a region is told of how far away others are: of buckets by their regions, of control nodes by their
    /// addresses.
    fn far_from(
        &self,
        own: &str,
        nodes: &[(Option<&String>, String)],
    ) -> Vec<(&'static str, String)> {
        let regions = self.regions.iter();
        let regions = regions.map(|region| (region.as_str(), region.as_str()));
        let nodes = nodes.iter().filter_map(|(region, address)| {
            let region = region.as_ref()?;
            Some((region.as_str(), address.as_str()))
        });
        let told = |flag, places: Vec<(&str, &str)>| {
            let far = places.into_iter().filter_map(|(region, name)| {
                let round_trip = self.round_trip_ms(own, region);
                (round_trip > 0).then(|| format!("{name}={round_trip}"))
            });
            let far: Vec<String> = far.collect();
            (!far.is_empty()).then(|| (flag, far.join(",")))
        };
        let (regions, nodes) = (regions.collect(), nodes.collect());
        let told = [told("--far-regions", regions), told("--far-nodes", nodes)];
        told.into_iter().flatten().collect()
    }

    /// The region, if there are several, and the number of each process of a role.
    fn processes(&self, role: Role) -> Vec<(Option<&String>, u32)> {
        let numbers = 1..=self.kind(role).count;
        if self.regions.is_empty() {
            return numbers.map(|number| (None, number)).collect();
        }
        let all = self.regions.iter().flat_map(|region| {
            let numbers = numbers.clone();
            numbers.map(move |number| (Some(region), number))
        });
        all.collect()
    }
}

impl Member {
    /// Kills it, as `kill -9` does.
    fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            drop(child.kill());
        }
    }

    fn start(&mut self) -> Result<()> {
        drop(std::fs::remove_file(&self.file));
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.with_context(|| format!("cannot write {}", self.log.display()))?;
        let program = program()?;
        let mut command = Command::new(&program);
        for variable in &self.hidden {
            command.env_remove(variable);
        }
        let child = command
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for this process: to theirs it would be the first of two signals, and they would not end in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {} by {}", self.name, program.display()))?;
        tracing::info!(name = self.name, pid = child.id(), "started");
        self.child = Some(child);
        self.is_awaited = true;
        Ok(())
    }

    /// Notices that it has ended, or said where it listens.
    fn look(&mut self) {
        if let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            if !self.is_ending {
                tracing::warn!(name = self.name, %status, "a process has ended; `seaway node start` starts it again");
            }
            self.child = None;
        }
        if self.is_awaited
            && let Some(told) = NodeEndpoints::read(&self.file)
        {
            self.endpoints = Some(told);
            self.is_awaited = false;
        }
    }
}

/// Where this program is, or what has taken its place there since it was started: of a file that is gone the system says so after its path.
fn program() -> Result<PathBuf> {
    let running = std::env::current_exe().context("this program is not found")?;
    Ok(as_started(running))
}

fn as_started(running: PathBuf) -> PathBuf {
    let path = running.as_os_str().as_encoded_bytes();
    match path.strip_suffix(GONE) {
        Some(started) if !running.exists() => OsStr::from_bytes(started).into(),
        _ => running,
    }
}

fn announce(endpoints: &Endpoints) -> Result<()> {
    say!("Seaway is ready.");
    let longest = endpoints.nodes.iter().map(|node| node.name.len()).max();
    let width = longest.unwrap_or_default().max(12);
    for node in &endpoints.nodes {
        let address = node.address();
        let NodeEndpoints { name, http, .. } = node;
        say!("  {name:width$}  {address:24}  {http}");
    }
    say!("Stop it with Ctrl-C.");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_replaced_this_program_is_started_in_its_place() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("seaway");
        let gone = home.path().join("seaway (deleted)");
        assert_eq!(as_started(path.clone()), path);
        assert_eq!(as_started(gone.clone()), path);
        // It may be called so.
        std::fs::write(&gone, "").expect("written");
        assert_eq!(as_started(gone.clone()), gone);
    }

    #[test]
    fn processes_are_dealt_out_over_zones() {
        let zones = ["a".to_owned(), "b".to_owned()];
        let dealt = (1..=5).map(|number| zone_of(&zones, number));
        let dealt: Vec<&str> = dealt.flatten().collect();
        assert_eq!(dealt, ["a", "b", "a", "b", "a"]);
        assert_eq!(zone_of(&[], 1), None);
    }
}
