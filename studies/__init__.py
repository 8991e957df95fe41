"""Research: experiments behind a page of docs, with their results. `benchmarks` measures speed."""
