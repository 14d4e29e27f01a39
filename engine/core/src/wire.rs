//! Plans as `insitu.v1.Plan` messages, and back.

use insitu_query::Plan;

use crate::error::{Error, Result};

/// The message of a plan.
///
/// # Errors
/// `LimitExceeded`.
pub fn encode(_plan: &Plan) -> Result<Vec<u8>> {
    Err(Error::Unsupported("being written".into()))
}

/// The plan of a message.
///
/// # Errors
/// `InvalidPlan`, `LimitExceeded`.
pub fn decode(_message: &[u8]) -> Result<Plan> {
    Err(Error::Unsupported("being written".into()))
}
