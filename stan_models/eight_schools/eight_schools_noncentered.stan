// Eight schools, non-centered: group effects as standard normals, shifted and scaled.
data {
  int<lower=0> J;                // schools
  vector[J] y;                   // estimated effects of coaching
  vector<lower=0>[J] sigma;      // their standard errors
}
parameters {
  real mu;
  real<lower=0> tau;
  vector[J] theta_raw;
}
transformed parameters {
  vector[J] theta = mu + tau * theta_raw;
}
model {
  mu ~ normal(0, 5);
  tau ~ cauchy(0, 5);
  theta_raw ~ std_normal();
  y ~ normal(theta, sigma);
}
