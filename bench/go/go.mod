module taskpool/bench

go 1.19
