package dir

// openFlags has nothing to add: opening a file never waits for a writer.
const openFlags = 0
