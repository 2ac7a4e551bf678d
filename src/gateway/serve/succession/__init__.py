"""A product's folder changes: its next generation is verified, and served without a restart.

The supervisor's side:

    watch         has a folder changed, and has it come to rest?
    generations   which generation of each product is served
    verification  what is asked of a process that verifies a change, and what it answers
    verifier      that process: read whole, number, try, gates, snapshot

A worker's side:

    succession    new generations, opened beside the hall, served between two turns
"""
