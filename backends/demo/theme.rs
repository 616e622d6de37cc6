//! How things look: by colour, or by weight alone where `NO_COLOR` is set (<https://no-color.org>).

use ratatui::style::{Color, Modifier, Style};

/// Which styles may be used.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    has_colours: bool,
}

impl Theme {
    /// With colours, in the sixteen that every terminal has in its owner's taste.
    pub const COLOURED: Self = Self { has_colours: true };
    /// Without.
    pub const PLAIN: Self = Self { has_colours: false };

    /// What the environment asks for.
    pub fn from_environment() -> Self {
        match std::env::var_os("NO_COLOR") {
            Some(value) if !value.is_empty() => Self::PLAIN,
            _ => Self::COLOURED,
        }
    }

    /// The name of the programme.
    pub fn title(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD | Modifier::REVERSED)
    }

    /// What one looks at first.
    pub fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What one need not look at.
    pub fn faint(self) -> Style {
        self.coloured(Color::DarkGray, Modifier::DIM)
    }

    /// As it should be.
    pub fn good(self) -> Style {
        self.coloured(Color::Green, Modifier::empty())
    }

    /// Out of order, and dealt with.
    pub fn warning(self) -> Style {
        self.coloured(Color::Yellow, Modifier::BOLD)
    }

    /// Not as it should be.
    pub fn bad(self) -> Style {
        self.coloured(Color::Red, Modifier::BOLD)
    }

    /// Amounts.
    pub fn bar(self) -> Style {
        self.coloured(Color::Cyan, Modifier::empty())
    }

    fn coloured(self, colour: Color, otherwise: Modifier) -> Style {
        if self.has_colours {
            Style::new().fg(colour)
        } else {
            Style::new().add_modifier(otherwise)
        }
    }
}
