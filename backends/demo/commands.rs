//! What a person can tell the demo, and by which key.

use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::ports::SERVERS;

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `kill -9` the server of this index, or start it again.
    KillOrRevive(usize),
    /// Make one server hang, or the one that hangs go on.
    HangOrGoOn,
    /// Pause the poller, or let it go on.
    PauseOrContinuePoller,
    /// Take a server out by the health file, or back in.
    DrainOrReady,
    /// More clients at once.
    MoreClients,
    /// Fewer clients at once.
    FewerClients,
    /// End the demo.
    Quit,
}

impl Command {
    /// The command of a character.
    pub fn of(key: char) -> Option<Self> {
        match key {
            '1'..='9' => {
                let index = key as usize - '1' as usize;
                (index < SERVERS.len()).then_some(Self::KillOrRevive(index))
            }
            's' => Some(Self::HangOrGoOn),
            'p' => Some(Self::PauseOrContinuePoller),
            'd' => Some(Self::DrainOrReady),
            // The key of the plus without its shift.
            '+' | '=' => Some(Self::MoreClients),
            '-' => Some(Self::FewerClients),
            'q' => Some(Self::Quit),
            _ => None,
        }
    }

    /// The command of what came from the terminal. In raw mode Ctrl-C is a key and no signal.
    pub fn of_event(event: &Event) -> Option<Self> {
        match event {
            Event::Key(KeyEvent {
                kind: KeyEventKind::Release,
                ..
            }) => None,
            Event::Key(KeyEvent {
                code: KeyCode::Char(key),
                modifiers,
                ..
            }) => {
                if modifiers.contains(KeyModifiers::CONTROL) {
                    return (*key == 'c').then_some(Self::Quit);
                }
                Self::of(key.to_ascii_lowercase())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(key: char, modifiers: KeyModifiers) -> Option<Command> {
        Command::of_event(&Event::Key(KeyEvent::new(KeyCode::Char(key), modifiers)))
    }

    #[test]
    fn control_c_quits_and_c_does_not() {
        assert_eq!(key('c', KeyModifiers::CONTROL), Some(Command::Quit));
        assert_eq!(key('c', KeyModifiers::NONE), None);
        assert_eq!(key('s', KeyModifiers::CONTROL), None);
    }

    #[test]
    fn there_are_keys_for_three_servers() {
        assert_eq!(key('3', KeyModifiers::NONE), Some(Command::KillOrRevive(2)));
        assert_eq!(key('4', KeyModifiers::NONE), None);
    }

    #[test]
    fn a_capital_letter_is_its_small_one() {
        assert_eq!(key('Q', KeyModifiers::SHIFT), Some(Command::Quit));
    }
}
