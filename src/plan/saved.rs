//! A plan in a file: versioned JSON, refused when the kernel moved on. Pure.

use serde::{Deserialize, Serialize};

use super::{Plan, check, names};
use crate::kinds::{Blocked, Observed, Op};

/// Version of the JSON that ciliate prints and reads. Raised when something is renamed or removed;
/// additions don't raise it.
pub const FORMAT_VERSION: u32 = 1;

/// A plan as it is saved, and as `plan -o json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedPlan {
    pub format_version: u32,
    pub ops: Vec<Op>,
    pub blocked: Vec<Blocked>,
}

/// Why a saved plan is not applied.
#[derive(Debug, thiserror::Error)]
pub enum SavedPlanError {
    #[error("not a plan: {0}")]
    Syntax(#[from] serde_json::Error),
    #[error(
        "the plan has format {found}, this ciliate reads {FORMAT_VERSION}; make the plan again"
    )]
    Version { found: u32 },
    #[error("the plan was not made by ciliate, or was edited")]
    Strange(#[source] check::Broken),
    #[error("the kernel changed after the plan was made; make the plan again")]
    Moved(#[source] check::Broken),
}

impl SavedPlan {
    /// A plan to be saved.
    pub fn new(plan: &Plan) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            ops: plan.ops.clone(),
            blocked: plan.blocked.clone(),
        }
    }

    /// Reads a saved plan.
    ///
    /// # Errors
    /// It is not a plan, or one of another format.
    pub fn parse(text: &str) -> Result<Self, SavedPlanError> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let Version { format_version: found } = serde_json::from_str(text)?;
        if found != FORMAT_VERSION {
            return Err(SavedPlanError::Version { found });
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The plan, if the kernel is still as it was when the plan was made.
    ///
    /// # Errors
    /// [`SavedPlanError::Moved`], with the first object that differs.
    pub fn into_plan(self, observed: &Observed) -> Result<Plan, SavedPlanError> {
        names::check(&self.ops).map_err(SavedPlanError::Strange)?;
        check::still_fits(&self.ops, observed).map_err(SavedPlanError::Moved)?;
        check::check(&self.ops, observed).map_err(SavedPlanError::Moved)?;
        Ok(Plan { ops: self.ops, blocked: self.blocked })
    }
}
