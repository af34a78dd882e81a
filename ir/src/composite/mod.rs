//! Composites: functions over the builder that need no gradient rule and no lowering of their own.

mod pool;
