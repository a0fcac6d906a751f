# shellcheck shell=bash disable=SC2034 # used where it is sourced
# The tests that run inside the VM. Sourced by run, for the list, and by guest.
#
# Each has a line here and a function of its name. `only` names the kernel of
# those that run on one of them. What they start was built on the host.

declare -A tests=(
    [verifier]="every BPF program loads, far from the verifier's limit"
    [vlan]="VLAN and QinQ devices between two data planes"
    [bpf]="the tests of the BPF programs, on a VLAN device too"
    [traffic]="datagrams in all suites; cleartext, replays and forgeries are dropped"
    [workers]="several queues and workers; one panics; the uplink goes and comes"
    [clsact]="clsact in place of tcx"
    [killed]="after SIGKILL nothing goes in clear, and a successor takes over"
    [daemon]="gmespd starts, is killed, takes over and ends cleanly"
    [demo]="gmespd demo"
    [kernel]="gm_xfrm::kernel and gm-xfrm against a real kernel"
    [vectors]="the kernel opens what Scapy has sealed, and drops what we drop"
    [formats]="gm-xfrm export through iproute2, import, and both ends of one file"
    [matrix]="gmespd against the kernel, both roles: the matrix, replays, renewals, NAT"
    [phone]="the kernel as a real phone: SIP over UDP sockets and SIPp's TCP in its ESP"
    [plane]="gmespd on the kernel's ESP: closed before, after a kill and in between; sets, NAT"
    [adopt]="gm-xfrm adopt and give-back: SAs change hands under traffic"
    [migrate]="a phone at Kamailio's ims_ipsec_pcscf: its SAs in the kernel, taken over and given back"
    [plane-e2e]="the same end to end, with phones, SIPp and Kamailio"
)
order=(verifier vlan bpf traffic workers clsact killed daemon demo
    kernel vectors formats matrix phone plane plane-e2e adopt migrate)
# The older kernel shows more: its verifier knows less, and it has clsact only.
declare -A only=([clsact]=6.12 [bpf]=6.1 [workers]=6.1)

test_verifier() { rust xdp_prog attach::the_verifier_is_far_from_its_limit; }
test_vlan() { rust vlan ''; }
test_bpf() { rust xdp_prog ''; }
test_traffic() {
    rust dataplane_veth datagrams_of_all_sizes_cross_in_all_suites \
        replayed_tampered_and_cleartext_packets_end_each_for_its_reason
}
test_workers() {
    rust workers every_phone_is_served_by_the_worker_of_its_address \
        a_worker_that_panics_is_started_again_with_its_sas \
        links::an_uplink_that_was_unplugged_carries_the_same_sas_when_it_is_back \
        links::a_kill_with_several_queues_leaves_the_policy
}
test_clsact() { rust dataplane_veth life::clsact_does_where_there_is_no_tcx; }
test_killed() {
    rust dataplane_veth life::a_kill_leaves_the_policy_and_a_successor_takes_over \
        life::shutdown_leaves_nothing
}
test_daemon() { rust process ''; }
test_demo() { "$(program gmespd)" demo; }
test_kernel() { rust kernel_xfrm ''; }
test_vectors() { rust kernel_vectors ''; }
test_formats() { rust kernel_formats ''; }
test_matrix() {
    rust kernel_peer '' || return
    is_older || GM_TEST_DATA_PLANE=kernel rust kernel_peer matrix::every_suite_mode_and_size_crosses_both_ways_in_both_roles
}
# gmespd carries its side by XDP on the one kernel, by the kernel on the other.
test_phone() {
    if is_older; then rust kernel_phone ''; else GM_TEST_DATA_PLANE=kernel rust kernel_phone ''; fi
}
test_plane() { rust kernel_plane ''; }
# What is left out, and why, is in kernel-plane-skip. Half of it on each kernel.
test_plane-e2e() {
    local name these=(process sipp kamailio) status=0
    is_older && these=(process gm_ue drops)
    for name in "${these[@]}"; do
        GM_TEST_DATA_PLANE=kernel rust_but kernel-plane-skip "$name" || status=$?
    done
    return "$status"
}
test_adopt() { rust kernel_adopt ''; }
test_migrate() { rust migrate ''; }

is_older() { [[ $(uname -r) == 6.1.* ]]; }
