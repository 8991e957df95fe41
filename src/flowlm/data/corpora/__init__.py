"""Where text comes from: plain files, tables in files or on the hub, and the published corpora."""
