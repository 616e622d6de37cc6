//! The terminal: entered, drawn on, read from, and given back as it was however the demo ends.

use std::io::{self, IsTerminal as _, Stdout};
use std::process;
use std::sync::Once;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode, size,
};
use tokio::sync::mpsc;

use crate::commands::Command;
use crate::model::Model;
use crate::theme::Theme;
use crate::view;

/// As a panic ends a program by itself.
const PANICKED: i32 = 101;

/// The terminal while it is ours. Dropping it gives it back.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    theme: Theme,
}

/// Whether there is a terminal that can be drawn on.
pub fn is_there() -> bool {
    let is_able = std::env::var_os("TERM").is_some_and(|name| !name.is_empty() && name != "dumb");
    is_able && io::stdin().is_terminal() && io::stdout().is_terminal() && size().is_ok()
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it is none.
    pub fn open() -> io::Result<Self> {
        give_back_on_panic();
        let opened = enable_raw_mode()
            .and_then(|()| execute!(io::stdout(), EnterAlternateScreen))
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match opened {
            Ok(terminal) => Ok(Self {
                terminal,
                theme: Theme::from_environment(),
            }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Shows the model as it is.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn draw(&mut self, model: &Model, now: Duration) -> io::Result<()> {
        let theme = self.theme;
        self.terminal.draw(|frame| {
            view::draw(model, now, theme, frame.area(), frame.buffer_mut());
        })?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Leaves raw mode, which works on a terminal that takes no output, too. Without raw mode it does nothing.
pub fn give_back_mode() {
    let _ = disable_raw_mode();
}

/// Leaves raw mode and the alternate screen and shows the cursor. A terminal that is gone needs none of it.
fn give_back() {
    give_back_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}

/// A panic anywhere ends the demo, with its message on the screen that stays. The parts and the folder need no
/// help from us (`roles`, `folder`).
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            report(panic);
            process::exit(PANICKED);
        }));
    });
}

/// Reads keys in a thread of its own until nobody wants them; a terminal that is gone means quit.
///
/// # Errors
/// When there is no room for a thread.
pub fn read_keys(commands: mpsc::Sender<Command>) -> io::Result<()> {
    let read = move || {
        loop {
            let command = match event::read() {
                Ok(event) => Command::of_event(&event),
                Err(_) => Some(Command::Quit),
            };
            let Some(command) = command else { continue };
            if commands.blocking_send(command).is_err() || command == Command::Quit {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("keys".to_owned())
        .spawn(read)?;
    Ok(())
}
