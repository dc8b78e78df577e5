package outbox

// Found is what [Config.Read] finds in a message. It is valid during the call.
type Found struct{ receipts []receipt }

// receipt is what the server says about one message, or about all up to one.
type receipt struct {
	id      string
	upTo    bool
	refused error
}

// Acked says that the server acknowledges the message with an id.
func (f *Found) Acked(id string) { f.receipts = append(f.receipts, receipt{id: id}) }

// AckedUpTo says that the server acknowledges a message and all that were put before it.
func (f *Found) AckedUpTo(id string) { f.receipts = append(f.receipts, receipt{id: id, upTo: true}) }

// Refused says that the server does not take a message, and why. It is not sent again.
func (f *Found) Refused(id string, why error) {
	if why == nil {
		why = errNoReason
	}
	f.receipts = append(f.receipts, receipt{id: id, refused: why})
}
