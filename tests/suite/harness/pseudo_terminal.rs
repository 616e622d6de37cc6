//! A program in a terminal that nobody sits at: keys are typed, the screen is read.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Action, LocalModes, Winsize, tcflow, tcgetattr, tcsetwinsize};
use vt100::Parser;

use super::patience::until;

/// Smaller ones are more than the screen's reader can take, so nothing is read of them.
const READABLE: (u16, u16) = (20, 5);

/// A terminal and the program that has it. Killed when dropped.
pub struct PseudoTerminal {
    controller: File,
    /// The program's side, kept open so that it can be looked at after the end.
    terminal: OwnedFd,
    screen: Arc<Mutex<Screen>>,
    child: Child,
}

struct Screen {
    parser: Parser,
    is_readable: bool,
}

impl PseudoTerminal {
    /// Runs `command` in a terminal of 80 by 24, which is its controlling one.
    pub fn start(command: &[&str], folder: &Path) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
        let controller = controller.expect("the system has pseudo-terminals");
        grantpt(&controller).expect("it is ours");
        unlockpt(&controller).expect("it is ours");
        let name = ptsname(&controller, Vec::new()).expect("it has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let terminal = open(name, flags, Mode::empty()).expect("it can be opened");
        let side = || terminal.try_clone().expect("a descriptor can be cloned");
        // `setsid` makes it the controlling terminal, which is told of changes of its size.
        let child = Command::new("setsid")
            .arg("--ctty")
            .args(command)
            .current_dir(folder)
            .env("TERM", "xterm-256color")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let screen = Arc::new(Mutex::new(Screen {
            parser: Parser::new(24, 80, 0),
            is_readable: true,
        }));
        let this = Self {
            controller: controller.into(),
            terminal,
            screen,
            child,
        };
        this.resize(80, 24);
        this.read_in_background();
        this
    }

    /// For as long as there is the terminal: a program stands still when nobody reads what it writes.
    fn read_in_background(&self) {
        let mut controller = self.controller.try_clone().expect("it can be cloned");
        let screen = Arc::clone(&self.screen);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(bytes @ 1..) = controller.read(&mut piece) {
                let mut screen = screen.lock().unwrap();
                if screen.is_readable {
                    screen.parser.process(&piece[..bytes]);
                }
            }
        });
    }

    /// The process that `command` is.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Types these keys.
    pub fn types(&mut self, keys: &str) {
        self.controller
            .write_all(keys.as_bytes())
            .expect("the terminal takes keys");
    }

    /// Changes the size of the terminal.
    pub fn resize(&self, columns: u16, rows: u16) {
        let mut screen = self.screen.lock().unwrap();
        screen.is_readable = columns >= READABLE.0 && rows >= READABLE.1;
        if screen.is_readable {
            screen.parser.screen_mut().set_size(rows, columns);
        }
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.controller, size).expect("a terminal has a size");
    }

    /// From now on the terminal takes nothing, as after Ctrl-S: who writes stands still.
    pub fn stand_still(&self) {
        tcflow(&self.terminal, Action::OOff).expect("a terminal can be stopped");
    }

    /// What the screen shows.
    pub fn text(&self) -> String {
        self.screen.lock().unwrap().parser.screen().contents()
    }

    /// Waits until the screen shows all of this.
    pub async fn shows(&self, words: &[&str], limit: Duration) {
        let what = format!("the screen shows {words:?}");
        let mut text = String::new();
        let shown = until(&what, limit, async || {
            text = self.text();
            words.iter().all(|word| text.contains(word))
        });
        shown.await;
    }

    /// Whether the terminal is as programs leave it: lines are echoed, the first screen is shown, with its cursor.
    pub fn is_given_back(&self) -> bool {
        let modes = tcgetattr(&self.terminal).expect("a terminal has modes");
        let modes = modes.local_modes;
        let screen = self.screen.lock().unwrap();
        let screen = screen.parser.screen();
        modes.contains(LocalModes::ICANON | LocalModes::ECHO)
            && !screen.alternate_screen()
            && !screen.hide_cursor()
    }

    /// Waits until the program has ended.
    pub async fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let mut ended = None;
        until("the program in the terminal ended", limit, async || {
            ended = self.child.try_wait().expect("our own child can be asked");
            ended.is_some()
        })
        .await;
        ended.expect("it has ended")
    }
}

impl Drop for PseudoTerminal {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // Nothing more to show where its reader has panicked.
            if let Ok(screen) = self.screen.lock() {
                eprintln!(
                    "--- the screen:\n{}\n---",
                    screen.parser.screen().contents()
                );
            }
        }
    }
}
