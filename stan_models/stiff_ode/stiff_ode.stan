// Robertson's chemical reaction, whose rates differ by nine orders of magnitude: A becomes B, slowly;
// two B become B and C, at once; B and C become A and C, fast. A stiff solver integrates it.
functions {
  vector rates(real t, vector share, real slow, real fastest, real fast) {
    real from_a = slow * share[1];
    real to_a = fast * share[2] * share[3];
    real to_c = fastest * square(share[2]);
    return [to_a - from_a, from_a - to_a - to_c, to_c]';
  }
}
data {
  int<lower=1> N;
  array[N] real<lower=0> time;             // seconds
  array[N] vector<lower=0>[3] y;           // measured shares of A, B and C
}
parameters {
  real<offset=log(0.04), multiplier=0.5> log_slow;
  real<offset=log(3e7), multiplier=0.5> log_fastest;
  real<offset=log(1e4), multiplier=0.5> log_fast;
  real<lower=0> sigma;                     // of the log measurement
}
model {
  log_slow ~ normal(log(0.04), 0.5);
  log_fastest ~ normal(log(3e7), 0.5);
  log_fast ~ normal(log(1e4), 0.5);
  sigma ~ exponential(5);
  array[N] vector[3] share = ode_bdf_tol(rates, [1, 0, 0]', 0, time, 1e-8, 1e-12, 100000,
                                         exp(log_slow), exp(log_fastest), exp(log_fast));
  for (n in 1:N) {
    y[n] ~ lognormal(log(share[n]), sigma);
  }
}
