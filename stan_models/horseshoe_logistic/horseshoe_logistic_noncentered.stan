// horseshoe_logistic.stan with coefficients as multiples of their scales: the same posterior and,
// for the same data, the same evidence.
data {
  int<lower=1> n;
  int<lower=1> d;
  matrix[n, d] X;
  array[n] int<lower=0, upper=1> y;
}
parameters {
  real alpha;
  vector[d] z;                   // coefficients in units of their scales
  real<lower=0> tau;             // scale of all coefficients
  vector<lower=0>[d] lambda;     // scale of each
}
transformed parameters {
  vector[d] beta = tau * lambda .* z;
}
model {
  alpha ~ cauchy(0, 10);
  tau ~ cauchy(0, 1);
  lambda ~ cauchy(0, 1);
  z ~ std_normal();
  y ~ bernoulli_logit_glm(X, alpha, beta);
}
