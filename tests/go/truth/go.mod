module truth

go 1.27
