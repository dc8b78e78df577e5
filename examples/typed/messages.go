package main

type trade struct {
	Symbol string  `json:"symbol"`
	Price  float64 `json:"price"`
	Size   int     `json:"size"`
}

// market says whether there is trading.
type market struct {
	Open bool `json:"open"`
}

// order is a wish to buy. The server repeats it when it is filled.
type order struct {
	Symbol string  `json:"symbol"`
	Limit  float64 `json:"limit"`
}
