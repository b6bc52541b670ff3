package state

// SigningKeyRotated says that another key signs the log after this record, which
// the old one signed. It is the last record that the old one signs.
type SigningKeyRotated struct {
	Key string `json:"key" pb:"1"` // the new public key, in the encoding of signed notes
}

// Kind implements Fact.
func (*SigningKeyRotated) Kind() Kind { return KindSigningKeyRotated }
