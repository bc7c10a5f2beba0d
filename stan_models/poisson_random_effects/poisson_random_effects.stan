// Poisson regression of counts with an exposure and a random effect for each group. Non-centered.
data {
  int<lower=1> N;                          // counts
  int<lower=1> J;                          // groups
  int<lower=1> d;                          // covariates
  array[N] int<lower=1, upper=J> group;
  matrix[N, d] X;
  vector<lower=0>[N] exposure;
  array[N] int<lower=0> y;
}
transformed data {
  vector[N] log_exposure = log(exposure);
}
parameters {
  real alpha;
  vector[d] beta;
  real<lower=0> tau;                       // standard deviation of the groups' log rates
  vector[J] eta;                           // groups, as standard normals
}
model {
  alpha ~ normal(0, 2);
  beta ~ normal(0, 1);
  tau ~ exponential(1);
  eta ~ std_normal();
  y ~ poisson_log_glm(X, log_exposure + alpha + tau * eta[group], beta);
}
