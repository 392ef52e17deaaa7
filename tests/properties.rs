//! The laws of planning and lowering, tried on made-up worlds. No kernel, no root.
//!
//! `predict` stands for the kernel here. That it tells the truth about the kernel is what the netns
//! tier shows; what is shown here is that the planner is right if it does.

#[path = "properties/ahead.rs"]
mod ahead;
#[path = "properties/failing.rs"]
mod failing;
#[path = "properties/kind_laws.rs"]
mod kind_laws;
#[path = "properties/lowering.rs"]
mod lowering;
#[path = "properties/messages.rs"]
mod messages;
#[path = "properties/nodes.rs"]
mod nodes;
#[path = "properties/opening.rs"]
mod opening;
#[path = "properties/planning.rs"]
mod planning;
#[path = "properties/services.rs"]
mod services;
#[path = "properties/worlds.rs"]
mod worlds;
