//! What things are called. A name is the identity of a backend or an upstream across reloads and
//! in the health file; addresses are not. A request's name is whatever its client says, or made.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

mod request;

pub use request::RequestId;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as written in the configuration.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        /// Lets maps that are keyed by a name be asked with plain text.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// A group of backends that serve the same thing.
    UpstreamName
}
name! {
    /// One server. Unique in the whole configuration: the health file knows no upstreams.
    BackendName
}
