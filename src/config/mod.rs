//! YAML text to checked parameters; the only module that knows YAML.
