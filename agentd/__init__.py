"""Does: prepares a node, runs commands under keepers, releases what a job left. A pure core and its shell."""
