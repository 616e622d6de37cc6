//! Whatever stands where the health file should be: the last good report stays in force, the status
//! says what is wrong, the log says it once, and a good file is obeyed at once.

use std::fs::{self, Metadata};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::geteuid;

use crate::harness::{Backend, Proxy, Site, Units, backend, get, may_mount, proxy, until};

async fn two() -> [Backend; 2] {
    [backend("a").start().await, backend("b").start().await]
}

/// What may stand where the health file should be.
struct Odd {
    name: &'static str,
    /// Makes it at this path, where nothing is.
    make: fn(&Path),
    state: &'static str,
    problem: &'static str,
}

const ODD: [Odd; 7] = [
    Odd {
        name: "deleted",
        make: |_| {},
        state: "missing",
        problem: "",
    },
    Odd {
        name: "a directory",
        make: |path| fs::create_dir(path).unwrap(),
        state: "corrupt",
        problem: "not a regular file",
    },
    Odd {
        name: "a FIFO",
        make: |path| mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
        state: "corrupt",
        problem: "not a regular file",
    },
    Odd {
        name: "a loop of links",
        make: |path| symlink("health_status.json", path).unwrap(),
        state: "corrupt",
        problem: "symbolic links",
    },
    Odd {
        name: "a link to /dev/zero",
        make: |path| symlink("/dev/zero", path).unwrap(),
        state: "corrupt",
        problem: "not a regular file",
    },
    Odd {
        name: "20 MiB",
        make: |path| fs::write(path, vec![b' '; 20 << 20]).unwrap(),
        state: "corrupt",
        problem: "longer than 16777216 bytes",
    },
    Odd {
        name: "not JSON",
        make: |path| fs::write(path, "{\n  \"a\": yes\n}\n").unwrap(),
        state: "corrupt",
        problem: "line 2, column 8",
    },
];

/// `a` is down and stays so, `b` serves.
async fn assert_last_good_holds(lb: &Proxy) {
    for _ in 0..4 {
        assert_eq!(lb.ask(get("/home")).await.backend(), Some("b"));
    }
}

/// Waits until the status shows this state, and a problem that says this.
async fn until_state(lb: &Proxy, state: &str, problem: &str) {
    let what = format!("the report is {state}: {problem:?}");
    until(&what, 10.secs(), async || {
        let report = lb.status().await["report"].clone();
        report["state"] == state && report["problem"].as_str().unwrap_or("").contains(problem)
    })
    .await;
}

/// Puts it where the health file is: in one step, unless it is a folder, which can't replace a file.
fn put(odd: &Odd, path: &Path) {
    let aside = path.with_extension("odd");
    (odd.make)(&aside);
    let made = fs::symlink_metadata(&aside);
    if made.as_ref().map_or(true, Metadata::is_dir) {
        fs::remove_file(path).unwrap();
    }
    if made.is_ok() {
        fs::rename(&aside, path).unwrap();
    }
}

/// How many log lines there are about the file.
fn told(lb: &Proxy) -> usize {
    lb.log().matches(" health file is ").count()
}

#[tokio::test]
async fn whatever_stands_there_the_last_good_report_holds_and_the_log_says_it_once() {
    let lb = proxy()
        .upstream("web", &two().await)
        .with_down("a")
        .start()
        .await;
    let path = lb.site().health_path();
    for odd in &ODD {
        let before = told(&lb);
        put(odd, &path);
        until_state(&lb, odd.state, odd.problem).await;
        assert_last_good_holds(&lb).await;
        if path.is_dir() {
            fs::remove_dir(&path).unwrap();
        }
        // The other way round, so that it is seen to be obeyed.
        lb.health(&[("a", true), ("b", false)]).await;
        lb.health(&[("a", false), ("b", true)]).await;
        // Of what is between two states no more than a line may be said.
        let lines = told(&lb) - before;
        assert!((2..=3).contains(&lines), "{}: {lines} lines", odd.name);
    }
}

#[tokio::test]
async fn a_folder_that_is_deleted_and_made_anew_is_watched_again() {
    let site = proxy()
        .upstream("web", &two().await)
        .health_key("file", "folder/health_status.json")
        .site();
    let folder = site.path("folder");
    let file = folder.join("health_status.json");
    fs::create_dir(&folder).unwrap();
    fs::write(&file, r#"{"a": false, "b": true}"#).unwrap();
    let lb = site.started().await;
    fs::remove_dir_all(&folder).unwrap();
    until_state(&lb, "missing", "").await;
    assert_last_good_holds(&lb).await;
    fs::create_dir(&folder).unwrap();
    fs::write(&file, r#"{"a": true, "b": false}"#).unwrap();
    until("it is obeyed", 10.secs(), async || {
        lb.is_eligible("a").await && !lb.is_eligible("b").await
    })
    .await;
}

/// Puts a new folder with the file in place of the one that `..data` leads to.
fn swap(site: &Site, number: u32, a: bool) {
    let folder = site.path(&format!("..{number}"));
    fs::create_dir(&folder).unwrap();
    fs::write(
        folder.join("health_status.json"),
        site.health_text(&[("a", a)]),
    )
    .unwrap();
    symlink(&folder, site.path("..new")).unwrap();
    fs::rename(site.path("..new"), site.path("..data")).unwrap();
}

/// What a ConfigMap is in Kubernetes: the file is a link into a link that is swapped.
#[tokio::test]
async fn a_swapped_link_is_obeyed_and_leaves_no_line_in_the_log() {
    let site = proxy().upstream("web", &two().await).site();
    fs::remove_file(site.health_path()).unwrap();
    swap(&site, 0, true);
    symlink("..data/health_status.json", site.health_path()).unwrap();
    let lb = site.started().await;
    for number in 1..6 {
        let a = number % 2 == 0;
        swap(lb.site(), number, a);
        until("it is obeyed", 10.secs(), async || {
            lb.is_eligible("a").await == a
        })
        .await;
    }
    assert_eq!(told(&lb), 0, "{}", lb.log());
}

#[tokio::test]
async fn a_file_that_may_not_be_read_is_corrupt() {
    let mut builder = proxy().upstream("web", &two().await).with_down("a");
    if geteuid().is_root() {
        builder = builder.run_by(&[
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ]);
    }
    let site = builder.site();
    fs::set_permissions(site.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let lb = site.started().await;
    let path = lb.site().health_path();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    until_state(&lb, "corrupt", "Permission denied").await;
    assert_last_good_holds(&lb).await;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    until_state(&lb, "ok", "").await;
}

/// A single file mounted into a container: it can only be written in place, from the other side of the
/// mount, and the folder tells of nothing.
#[tokio::test]
async fn a_file_mounted_alone_is_obeyed_within_two_seconds() {
    if !may_mount() {
        return;
    }
    let mount = "mount --bind outside.json health_status.json && exec \"$@\"";
    let site = proxy()
        .upstream("web", &two().await)
        .with_down("a")
        .run_by(&["unshare", "--mount", "sh", "-c", mount, "sh"])
        .site();
    let outside = site.path("outside.json");
    fs::write(&outside, site.health_text(&[("a", false)])).unwrap();
    let lb = site.started().await;
    assert_last_good_holds(&lb).await;
    let mut times = Vec::new();
    for a in [true, false, true, false] {
        fs::write(&outside, lb.site().health_text(&[("a", a), ("b", !a)])).unwrap();
        let is_obeyed = async || lb.is_eligible("a").await == a;
        times.push(until("it is obeyed", 10.secs(), is_obeyed).await);
    }
    // The fastest: a machine that does something else for a moment proves nothing.
    assert!(*times.iter().min().unwrap() < 2.secs(), "{times:?}");
    assert_last_good_holds(&lb).await;
}
