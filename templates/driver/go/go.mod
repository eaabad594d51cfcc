module mydriver

go 1.24
