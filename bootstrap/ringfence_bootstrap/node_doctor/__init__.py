"""`ringfence doctor node`: named checks of one node of a cluster, each with its fix. It changes nothing."""
