//! What is converged carries packets: nobody has to wait for the kernel to see a carrier.

use crate::lab::{Lab, V4};
use crate::node::Text;

const ENDPOINTS: usize = 24;

#[test]
fn new_devices_carry_packets_at_once() {
    let Some(lab) = Lab::new(V4) else { return };
    let spaces = lab.many_spaces(ENDPOINTS);
    let text = spaces.iter().enumerate().fold(Text::node_a(&lab), |text, (number, space)| {
        text.endpoint(&format!("e{number}"), space, &[])
    });
    lab.a.write(&text);
    let ran = lab.a.ciliate(&["apply"]);
    // Lists, and doesn't ask for single links, which would make the kernel catch up (Linux 6.8).
    let links = lab.a.space.sh("ip -o link");
    assert_eq!(ran.code, 0, "{ran:?}");
    let ours: Vec<&str> = links.lines().filter(|line| line.contains(": lxc")).collect();
    assert_eq!(ours.len(), ENDPOINTS, "{links}");
    assert!(ours.iter().all(|line| line.contains(" state UP ")), "{links}");
}
