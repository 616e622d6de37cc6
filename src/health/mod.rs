//! The health file (`health_status.json`): the contract between whoever judges health and the proxy.
