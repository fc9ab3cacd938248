//! How much memory this process may take: the limits of its cgroups (both versions) and the size of the machine. It must
//! not know what the memory is for.

use std::fs;
use std::path::Path;

/// Where the kernel says in which cgroups a process is.
const OWN_CGROUPS: &str = "/proc/self/cgroup";
/// Where the kernel says how large the machine is.
const MEMINFO: &str = "/proc/meminfo";
/// Where cgroups of version 2 are mounted: alone, or beside those of version 1.
const MOUNTS_V2: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Where the memory controller of version 1 is mounted.
const MOUNT_V1: &str = "/sys/fs/cgroup/memory";

/// The most memory that a process may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub bytes: u64,
    pub whose: Whose,
}

/// What limits a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A cgroup that it is in: a container's, a service's.
    Container,
    Machine,
}

/// The limit of this process; `None` where the system tells neither.
pub fn limit() -> Option<Limit> {
    least(|path| fs::read_to_string(path).ok())
}

/// The least limit that the kernel's files tell; `read` yields the text of one, if it is there.
pub fn least(read: impl Fn(&Path) -> Option<String>) -> Option<Limit> {
    let machine = read(Path::new(MEMINFO)).and_then(|text| machine_bytes(&text));
    let cgroups = read(Path::new(OWN_CGROUPS)).unwrap_or_default();
    let container = cgroups
        .lines()
        .filter_map(|line| container_bytes(line, &read))
        .min();
    match (container, machine) {
        // Version 1 says "unlimited" by a number that no machine has.
        (Some(bytes), machine) if machine.is_none_or(|machine| bytes < machine) => Some(Limit {
            bytes,
            whose: Whose::Container,
        }),
        (_, Some(bytes)) => Some(Limit {
            bytes,
            whose: Whose::Machine,
        }),
        _ => None,
    }
}

/// `MemTotal` of /proc/meminfo.
fn machine_bytes(text: &str) -> Option<u64> {
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1_024)
}

/// The least limit of a cgroup and those around it, which limit it too. `line` is one of
/// /proc/self/cgroup, `number:controllers:path`; no controllers mean version 2. Inside of a container the path may be that
/// of the host, while the container's own files lie at the mount: what is not there is passed over, up to the mount.
fn container_bytes(line: &str, read: &impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let (mounts, file) = if controllers.is_empty() {
        (&MOUNTS_V2[..], "memory.max")
    } else if controllers.split(',').any(|name| name == "memory") {
        (&[MOUNT_V1][..], "memory.limit_in_bytes")
    } else {
        return None;
    };
    let groups = mounts.iter().flat_map(|mount| {
        let around = Path::new(path.trim_start_matches('/')).ancestors();
        around.map(|group| Path::new(mount).join(group).join(file))
    });
    // "max" is no number, and no limit.
    groups
        .filter_map(|file| read(&file)?.trim().parse().ok())
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const MEMINFO_16_GIB: (&str, &str) = (MEMINFO, "MemTotal:       16777216 kB\nMemFree:  1 kB\n");

    /// The limit by files of these paths and texts.
    fn told(files: &[(&str, &str)]) -> Option<Limit> {
        least(|path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, text)| (*text).to_owned())
        })
    }

    fn container(bytes: u64) -> Option<Limit> {
        Some(Limit {
            bytes,
            whose: Whose::Container,
        })
    }

    fn machine(bytes: u64) -> Option<Limit> {
        Some(Limit {
            bytes,
            whose: Whose::Machine,
        })
    }

    #[test]
    fn without_a_cgroup_it_is_the_machines() {
        assert_eq!(told(&[MEMINFO_16_GIB]), machine(16_384 * MIB));
        let root = (OWN_CGROUPS, "0::/\n");
        assert_eq!(told(&[MEMINFO_16_GIB, root]), machine(16_384 * MIB));
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[(MEMINFO, "MemTotal: many kB\n")]), None);
    }

    #[test]
    fn the_least_limit_of_a_cgroup_and_those_around_it_counts() {
        let files = |own: &'static str, around: &'static str| {
            told(&[
                MEMINFO_16_GIB,
                (OWN_CGROUPS, "0::/kubepods/pod1/seaway\n"),
                ("/sys/fs/cgroup/kubepods/pod1/seaway/memory.max", own),
                ("/sys/fs/cgroup/kubepods/pod1/memory.max", around),
                ("/sys/fs/cgroup/kubepods/memory.max", "max\n"),
            ])
        };
        assert_eq!(files("536870912\n", "max\n"), container(512 * MIB));
        assert_eq!(files("max\n", "1073741824\n"), container(1_024 * MIB));
        assert_eq!(files("1073741824\n", "536870912\n"), container(512 * MIB));
        assert_eq!(files("max\n", "max\n"), machine(16_384 * MIB));
        let more_than_there_is = files("1099511627776\n", "max\n");
        assert_eq!(more_than_there_is, machine(16_384 * MIB));
    }

    #[test]
    fn a_container_sees_its_own_cgroup_as_the_root_of_the_mount() {
        let own = ("/sys/fs/cgroup/memory.max", "536870912\n");
        for path in ["0::/\n", "0::/docker/5a1f/not-mounted-here\n"] {
            let told = told(&[MEMINFO_16_GIB, (OWN_CGROUPS, path), own]);
            assert_eq!(told, container(512 * MIB), "{path}");
        }
    }

    #[test]
    fn version_1_is_read_too_and_its_unlimited_is_no_limit() {
        let cgroups = "9:pids:/a\n4:memory:/docker/5a1f\n0::/\n";
        let files = |own: &'static str| {
            told(&[
                MEMINFO_16_GIB,
                (OWN_CGROUPS, cgroups),
                (
                    "/sys/fs/cgroup/memory/docker/5a1f/memory.limit_in_bytes",
                    own,
                ),
                (
                    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n",
                ),
                ("/sys/fs/cgroup/pids/a/memory.limit_in_bytes", "1\n"),
            ])
        };
        assert_eq!(files("536870912\n"), container(512 * MIB));
        assert_eq!(files("9223372036854771712\n"), machine(16_384 * MIB));
    }

    #[test]
    fn a_machine_that_does_not_tell_its_size_has_the_containers_limit() {
        let cgroup = (OWN_CGROUPS, "0::/a\n");
        let own = ("/sys/fs/cgroup/a/memory.max", "536870912\n");
        assert_eq!(told(&[cgroup, own]), container(512 * MIB));
    }

    #[test]
    fn files_in_a_directory_are_read_as_those_of_the_system() {
        let root = std::env::temp_dir().join(format!("host-memory-{}", std::process::id()));
        let files = [
            MEMINFO_16_GIB,
            (OWN_CGROUPS, "0::/system.slice/seaway.service\n"),
            (
                "/sys/fs/cgroup/system.slice/seaway.service/memory.max",
                "max\n",
            ),
            ("/sys/fs/cgroup/system.slice/memory.max", "536870912\n"),
        ];
        let under = |path: &Path| root.join(path.strip_prefix("/").expect("absolute"));
        for (path, text) in files {
            let file = under(Path::new(path));
            fs::create_dir_all(file.parent().expect("it has one")).expect("a directory");
            fs::write(file, text).expect("written");
        }
        let told = least(|path| fs::read_to_string(under(path)).ok());
        fs::remove_dir_all(&root).expect("removed");
        assert_eq!(told, container(512 * MIB));
    }
}
