//! What tests with several processes share: the test binary starts itself again in a role, and the
//! two speak line by line. Each such binary has a test called `role`, which plays the roles.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use insitu_region::{CreateOptions, Location, Region};

/// The environment variable that names a peer's role.
pub const ROLE: &str = "INSITU_TEST_ROLE";
/// The one that names its region.
pub const REGION: &str = "INSITU_TEST_REGION";

/// A named region that is removed at the end, also when the test fails.
pub struct Place(pub String);

impl Place {
    pub fn new(what: &str) -> Self {
        Self(format!("test-{what}-{}", std::process::id()))
    }

    pub fn create(&self, capacity: u64) -> Region {
        let options = CreateOptions { capacity: Some(capacity), ..CreateOptions::default() };
        Region::create(Location::Shm(self.0.clone()), options).unwrap()
    }

    pub fn start(&self, role: &str) -> Peer {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "role", "--nocapture"])
            .env(ROLE, role)
            .env(REGION, &self.0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Peer { child, out }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Region::remove(&Location::Shm(self.0.clone()));
    }
}

/// A process of our own.
pub struct Peer {
    pub child: Child,
    pub out: BufReader<ChildStdout>,
}

impl Peer {
    /// Waits until the peer says so.
    pub fn expect(&mut self, said: &str) {
        assert_eq!(self.hear(said), "");
    }

    /// Waits until the peer says something that begins so; the rest of it.
    pub fn hear(&mut self, begins: &str) -> String {
        let mut line = String::new();
        while self.out.read_line(&mut line).unwrap() != 0 {
            if let Some(rest) = line.trim_end().strip_prefix(begins) {
                return rest.to_owned();
            }
            line.clear();
        }
        panic!("the peer ended before it said {begins:?}");
    }

    pub fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn finish(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tells who started us.
pub fn say(what: &str) {
    println!("\n{what}");
}

/// Waits until who started us says something, or ends.
pub fn wait() {
    let _ = std::io::stdin().read(&mut [0]);
}
