module iec104

go 1.24
