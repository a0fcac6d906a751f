# shellcheck shell=bash disable=SC2034 # used where it is sourced
# The tests that run inside the VM. Sourced by run, for the list, and by guest.
#
# Each has a line here and a function of its name. `only` names the kernel of
# those that run on one of them. What they start was built on the host.

declare -A tests=(
    [verifier]="every BPF program loads, far from the verifier's limit"
    [vlan]="VLAN and QinQ devices between two data planes"
    [bpf-vlan]="the BPF programs on a VLAN device"
    [traffic]="datagrams in all suites; cleartext, replays and forgeries are dropped"
    [clsact]="clsact in place of tcx"
    [killed]="after SIGKILL nothing goes in clear, and a successor takes over"
    [daemon]="gmespd starts, is killed, takes over and ends cleanly"
    [demo]="gmespd demo"
)
order=(verifier vlan bpf-vlan traffic clsact killed daemon demo)
# On both kernels each would say the same twice.
declare -A only=([clsact]=6.12 [bpf-vlan]=6.1)

test_verifier() { rust xdp_prog attach::the_verifier_is_far_from_its_limit; }
test_vlan() { rust vlan ''; }
test_bpf-vlan() { rust xdp_prog attach::on_a_vlan; }
test_traffic() {
    rust dataplane_veth datagrams_of_all_sizes_cross_in_all_suites \
        replayed_tampered_and_cleartext_packets_end_each_for_its_reason
}
test_clsact() { rust dataplane_veth life::clsact_does_where_there_is_no_tcx; }
test_killed() {
    rust dataplane_veth life::a_kill_leaves_the_policy_and_a_successor_takes_over \
        life::shutdown_leaves_nothing
}
test_daemon() { rust process ''; }
test_demo() { "$(program gmespd)" demo; }
