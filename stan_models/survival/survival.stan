// Weibull regression of survival times, some of them censored on the right.
data {
  int<lower=0> N_event;                    // deaths seen
  int<lower=0> N_censored;                 // persons alive when last seen
  int<lower=1> d;                          // covariates
  vector<lower=0>[N_event] t_event;
  matrix[N_event, d] X_event;
  vector<lower=0>[N_censored] t_censored;
  matrix[N_censored, d] X_censored;
}
parameters {
  real<lower=0> shape;
  real alpha;                              // log scale at covariates of zero
  vector[d] beta;                          // effects on the log scale
}
model {
  shape ~ lognormal(0, 0.5);
  alpha ~ normal(0, 2);
  beta ~ normal(0, 1);
  t_event ~ weibull(shape, exp(alpha + X_event * beta));
  target += weibull_lccdf(t_censored | shape, exp(alpha + X_censored * beta));
}
