package state

// CmdErase says that words beside the log were destroyed: those of the token
// that the record's ID holds. Its number stands apart from those of iota.
const CmdErase CommandVerb = 64

// CmdRotateKey says that the log got another signing key: SigningKeyRotated has it.
const CmdRotateKey CommandVerb = 175
