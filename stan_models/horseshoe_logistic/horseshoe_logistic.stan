// Logistic regression with a horseshoe prior: few coefficients far from zero.
data {
  int<lower=1> n;
  int<lower=1> d;
  matrix[n, d] X;
  array[n] int<lower=0, upper=1> y;
}
parameters {
  real alpha;
  vector[d] beta;
  real<lower=0> tau;             // scale of all coefficients
  vector<lower=0>[d] lambda;     // scale of each
}
model {
  alpha ~ cauchy(0, 10);
  tau ~ cauchy(0, 1);
  lambda ~ cauchy(0, 1);
  beta ~ normal(0, tau * lambda);
  y ~ bernoulli_logit_glm(X, alpha, beta);
}
