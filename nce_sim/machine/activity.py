"""Count what a program makes the machine do."""

import numpy as np

from nce_sim.cost.activity import Activity, DomainActivity
from nce_sim.machine.channel import Traffic
from nce_sim.protection.schemes import ARRAY_SCHEMES
from nce_sim.schedule.domains import DOMAINS, FOREIGN, PROTECTED
from nce_sim.schedule.program import EXTERNAL, RESIDENT, DomainWork, Program


def count_activity(program: Program, bus: Traffic, latency_cycles: int) -> Activity:
    """Return the counts of one run of `program`; `bus` is what its bus moved."""
    shares = [(work, domain, work.domains[domain]) for work in program.layers for domain in DOMAINS]
    on_chip = sum(n for what, n in bus.bytes_by_purpose.items() if what.endswith("on chip"))
    map_bytes = sum(work.map_bytes for work in program.layers)
    read = written = 0
    for _, domain, share in shares:
        own, foreign = _external_reads(share)
        weights = sum(tile.weight_bytes for tile in share.tiles)
        read += own + weights if domain == PROTECTED else foreign
        if domain == PROTECTED and share.outputs == EXTERNAL:
            written += sum(tile.output_bytes for tile in share.tiles)
    return Activity(
        domains={domain: _domain_activity(program, domain) for domain in DOMAINS},
        bus_bytes=sum(bus.bytes_by_purpose.values()),
        memory_bytes=sum(bus.bytes_by_purpose.values()) - on_chip,
        crossing_bytes=sum(t.foreign_input_bytes for _, _, s in shares for t in s.tiles),
        spilled_bytes=sum(
            t.output_bytes for _, _, s in shares if s.outputs == EXTERNAL for t in s.tiles
        ),
        map_bytes=map_bytes,
        memory_words_read=-(-(read + map_bytes) // 8),
        memory_words_written=-(-written // 8),
        tiles=sum(len(share.tiles) for _, _, share in shares),
        latency_cycles=latency_cycles,
    )


def _external_reads(share: DomainWork) -> tuple[int, int]:
    """Return the bytes of own and of foreign inputs that come from external memory."""
    own = sum(tile.own_input_bytes for tile in share.tiles)
    foreign = sum(tile.foreign_input_bytes for tile in share.tiles)
    return (
        own if share.own_inputs == EXTERNAL else 0,
        foreign if share.foreign_inputs == EXTERNAL else 0,
    )


def _domain_activity(program: Program, domain: str) -> DomainActivity:
    shares = [(work.layer, work.domains[domain]) for work in program.layers]
    foreign_shares = [work.domains[FOREIGN[domain]] for work in program.layers]
    size = program.element_bytes
    plans = [share.plan for _, share in shares if share.plan is not None]
    scheme = ARRAY_SCHEMES[program.machine.domains[domain].array.scheme]
    neurons = sum(int(plan.neurons.sum()) for plan in plans)
    useful = sum(int(plan.neurons.sum()) * plan.layer.reduction_length for plan in plans)
    tiles = [tile for _, share in shares for tile in share.tiles]
    resident_reads = sum(
        tile.own_input_bytes
        for _, share in shares
        if share.own_inputs == RESIDENT
        for tile in share.tiles
    ) + sum(
        tile.foreign_input_bytes
        for share in foreign_shares
        if share.foreign_inputs == RESIDENT
        for tile in share.tiles
    )
    vector_elements = sum(
        int(np.count_nonzero(share.mask)) * layer.window
        for layer, share in shares
        if share.plan is None and not layer.has_neurons
    )
    return DomainActivity(
        neurons=neurons,
        useful_macs=useful,
        padded_macs=sum(share.padded_macs for _, share in shares),
        lane_macs=useful * scheme.work_factor,
        votes=neurons if scheme.votes else 0,
        input_read_bytes=size * (vector_elements + sum(plan.activation_reads for plan in plans)),
        weight_read_bytes=size * sum(plan.weight_reads for plan in plans),
        input_written_bytes=sum(tile.input_bytes for tile in tiles),
        weight_written_bytes=sum(tile.weight_bytes for tile in tiles),
        output_bytes=sum(tile.output_bytes for tile in tiles),
        resident_read_bytes=resident_reads,
        resident_written_bytes=sum(
            tile.output_bytes
            for _, share in shares
            if share.outputs == RESIDENT
            for tile in share.tiles
        ),
        vector_elements=vector_elements,
        waves=sum(plan.waves for plan in plans),
        idle_lane_cycles=sum(plan.idle_lane_cycles for plan in plans),
    )
