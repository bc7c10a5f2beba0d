// Eight schools, centered: group effects drawn around their mean directly.
data {
  int<lower=0> J;                // schools
  vector[J] y;                   // estimated effects of coaching
  vector<lower=0>[J] sigma;      // their standard errors
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[J] theta;
}
model {
  mu ~ normal(0, 5);
  tau ~ cauchy(0, 5);
  theta ~ normal(mu, tau);
  y ~ normal(theta, sigma);
}
