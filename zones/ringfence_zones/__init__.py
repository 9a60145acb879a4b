"""The nouns of Ringfence and its planner: policy, zones, keys, moves.

No daemon lives here and no SDK of a key store is imported here. Agent and bootstrap stand on this package;
it knows neither.
"""
