module pytraceprop.test/moves

go 1.19
