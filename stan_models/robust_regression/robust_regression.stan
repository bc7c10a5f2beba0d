// Linear regression with Student-t errors of unknown degrees of freedom.
data {
  int<lower=1> N;
  int<lower=1> d;                          // covariates
  matrix[N, d] X;
  vector[N] y;
}
parameters {
  real alpha;
  vector[d] beta;
  real<lower=0> sigma;
  real<lower=0> nu;                        // degrees of freedom
}
model {
  alpha ~ normal(0, 5);
  beta ~ normal(0, 2);
  sigma ~ exponential(1);
  nu ~ gamma(2, 0.1);
  y ~ student_t(nu, alpha + X * beta, sigma);
}
