//! A plan in a file: versioned JSON, refused when the kernel moved on. Pure.

use serde::{Deserialize, Serialize};

use super::{Plan, check};
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
    #[error("the kernel changed after the plan was made; make the plan again")]
    Moved(#[source] check::Broken),
    #[error(
        "with this configuration, on this kernel, by this ciliate the plan would be another; the \
         first difference is {object}; make the plan again"
    )]
    Differs { object: String },
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

    /// Whether the plan is the one that would be made now: planning is deterministic, so a plan that
    /// differs is of another configuration, kernel or ciliate, or was edited.
    ///
    /// # Errors
    /// The first object that isn't as the plan expects, or is planned otherwise.
    pub fn is_as(&self, fresh: &Plan, observed: &Observed) -> Result<(), SavedPlanError> {
        if self.ops == fresh.ops {
            return Ok(());
        }
        check::still_fits(&self.ops, observed).map_err(SavedPlanError::Moved)?;
        let length = self.ops.len().max(fresh.ops.len());
        let differs = (0..length).find(|at| self.ops.get(*at) != fresh.ops.get(*at)).unwrap_or(0);
        let op = self.ops.get(differs).or(fresh.ops.get(differs));
        let object = op.map_or_else(String::new, |op| op.object().to_string());
        Err(SavedPlanError::Differs { object })
    }
}
