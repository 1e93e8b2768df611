module offsets

go 1.22
