//! Method, host and path to a route.
